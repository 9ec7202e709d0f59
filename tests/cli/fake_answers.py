"""Answers without a model, and the command that prints them."""

from __future__ import annotations

from types import SimpleNamespace

from typer.testing import CliRunner, Result

from llava_scissor.cli.app import app
from llava_scissor.model import Turn

TIMINGS_S = {
    "decode": 0.5,
    "preprocess": 0.25,
    "vision_tower": 1.5,
    "compression": 0.125,
    "prefill": 2.0,
    "generate": 1.0,
    "total": 5.375,
}


def make_answer(**changes) -> SimpleNamespace:
    clip = SimpleNamespace(
        source="clip.mp4",
        indices=(0, 4, 9),
        timestamps_s=(0.0, 0.4, 0.9),
        num_source_frames=10,
        num_missing=0,
        fps=10.0,
    )
    compression = SimpleNamespace(
        num_input=1000, num_spatial=250, num_kept=99, tau=0.87654, tau_spatial=0.87654
    )
    answer = {
        "text": "A red [bold] circle.",
        "history": (Turn("What?", "A red [bold] circle."),),
        "compressions": (compression,),
        "compression": compression,
        "clip": clip,
        "image_sizes": (),
        "timings_s": {"prefill": 2.0, "generate": 1.0, "total": 3.0},
        "num_prompt_tokens": 120,
        "num_visual_tokens": 99,
        "num_cached_tokens": 0,
        "num_new_tokens": 7,
    }
    return SimpleNamespace(**(answer | changes))


def make_text_answer(**changes) -> SimpleNamespace:
    return make_answer(compressions=(), compression=None, clip=None, num_visual_tokens=0, **changes)


OPENING_S = {"decode": 0.5, "preprocess": 0.25, "vision_tower": 1.5, "compression": 0.125, "total": 2.375}


def ask(video: str, *options: str, question: str = "What?") -> Result:
    return CliRunner().invoke(app, ["ask", "--video", video, "--question", question, *options])


def ask_without_video(*options: str) -> Result:
    return CliRunner().invoke(app, ["ask", *options])
