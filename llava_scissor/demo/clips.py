"""Rendered clips as video files, and those that ship in the package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from llava_scissor.demo.drawing import render
from llava_scissor.demo.questions import Question, sample_questions
from llava_scissor.demo.scenes import SHAPES_V1, Scene, World, sample_scene
from llava_scissor.video.writer import write_video

CLIP_SIZE_PX = 256
CLIP_FRAMES = 48
CLIP_FPS = 12


@dataclass(frozen=True)
class DemoClip:
    """A clip with questions that it answers.

    Attributes:
        path: the video file.
        questions: questions with their right answers.
    """

    path: Path
    questions: tuple[Question, ...]


def scene_of_seed(seed: tuple[int, ...], world: World = SHAPES_V1) -> tuple[Scene, np.random.Generator]:
    """Return the scene that a seed stands for, and the generator that drew it, to go on with."""
    rng = np.random.default_rng(seed)
    return sample_scene(rng, world), rng


def write_clip(scene: Scene, rng: np.random.Generator, path: Path) -> None:
    """Render a scene and write it as H.264 in an MP4 file, `CLIP_FRAMES` square frames of `CLIP_SIZE_PX`."""
    frames = render(scene, rng, CLIP_SIZE_PX, np.linspace(0, 1, CLIP_FRAMES))
    write_video(frames, path, CLIP_FPS)


def write_demo_clips(directory: Path, seeds: list[tuple[int, ...]]) -> None:
    """Write one clip for each seed, and their questions as clips.json."""
    directory.mkdir(parents=True, exist_ok=True)
    listing = {}
    for seed in seeds:
        scene, rng = scene_of_seed(seed)
        name = "-".join(str(part) for part in seed)
        write_clip(scene, rng, directory / f"shapes-{name}.mp4")
        asked = [[q.kind, q.text, q.answer] for q in sample_questions(scene, rng)]
        listing[f"shapes-{name}.mp4"] = asked
    (directory / "clips.json").write_text(json.dumps(listing, indent=1) + "\n", encoding="utf-8")


def demo_clips() -> list[DemoClip]:
    """List the clips that ship in the package, with their questions."""
    directory = Path(str(files("llava_scissor.demo") / "videos"))
    listing = json.loads((directory / "clips.json").read_text(encoding="utf-8"))
    return [
        DemoClip(directory / name, tuple(Question(*entry) for entry in entries))
        for name, entries in listing.items()
    ]
