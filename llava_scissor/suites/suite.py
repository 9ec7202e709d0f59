"""Accuracy of many compressors on the same clips: one run, resumable, every answer kept.

The vision tower sees every clip once; each compressor is given the same visual tokens in turn. The questions
about a clip share the keys and values of its kept tokens.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llava_scissor._version import __version__
from llava_scissor.compression import Compressor
from llava_scissor.compression.baselines.random import RandomTokens
from llava_scissor.compression.protocol import Needs, TowerState, needs_of
from llava_scissor.config import GenerationConfig
from llava_scissor.demo.clips import scene_of_seed, write_clip
from llava_scissor.demo.drawing import render
from llava_scissor.demo.questions import Question, sample_questions
from llava_scissor.demo.scenes import SHAPES_HARD_V1, SHAPES_V1, World
from llava_scissor.errors import ConfigError
from llava_scissor.generation import Session
from llava_scissor.generation.encode import encode_tokens
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import OneVision
from llava_scissor.model.placement import describe_machine
from llava_scissor.results.answers import Method, SuiteAnswer, parse_answers
from llava_scissor.results.store import ResultStore
from llava_scissor.video import preprocess_frames, read_video

HELD_OUT = 9_000_000
"""First part of every held-out seed; no training seed begins with it."""

_SHORT_ANSWER = GenerationConfig(max_new_tokens=8)
_DRAWN_SIZE_PX, _DRAWN_FRAMES = 128, 8


@dataclass(frozen=True)
class Suite:
    """A named set of held-out clips with one question of every type that applies about each.

    Attributes:
        name: with a version; clips and questions of a name never change.
        first_clip: number of the first clip.
        num_clips: number of clips.
        world: what the scenes are like.
        use_video_files: encode each clip as H.264 and read it back, instead of drawing the model's frames.
    """

    name: str
    first_clip: int
    num_clips: int
    world: World = SHAPES_V1
    use_video_files: bool = False

    @property
    def clips(self) -> range:
        """The numbers of the clips."""
        return range(self.first_clip, self.first_clip + self.num_clips)

    def show(
        self, clip: int, size_px: int, num_frames: int
    ) -> tuple[UInt8[Tensor, "f h w 3"], list[Question]]:
        """Return a clip as square frames of a model's size, and the questions, whatever that size is."""
        seed = HELD_OUT, clip
        scene, rng = scene_of_seed(seed, self.world)
        frames = render(scene, rng, _DRAWN_SIZE_PX, np.linspace(0, 1, _DRAWN_FRAMES))
        questions = sample_questions(scene, rng)  # from what the drawing left of the generator
        if self.use_video_files:
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory) / "clip.mp4"
                write_clip(*scene_of_seed(seed, self.world), path)
                return read_video(path, num_frames).frames, questions
        if (size_px, num_frames) != (_DRAWN_SIZE_PX, _DRAWN_FRAMES):
            frames = render(*scene_of_seed(seed, self.world), size_px, np.linspace(0, 1, num_frames))
        return torch.from_numpy(frames), questions


SUITES = {
    suite.name: suite
    for suite in (
        Suite("shapes-v1", 0, 400),
        # Options of the compressor are chosen on "tune" and reported on "shapes-v1".
        Suite("shapes-v1-tune", 10_000, 200),
        Suite("shapes-hard-v1", 20_000, 400, SHAPES_HARD_V1),
    )
}


def choose_suite(name: str, num_clips: int | None = None, use_video_files: bool = False) -> Suite:
    """Return a suite, or its first clips.

    Raises:
        ConfigError: there is no such suite, or it has fewer clips.
    """
    if name not in SUITES:
        raise ConfigError(f"--suite {name}: expected one of {', '.join(SUITES)}")
    suite = SUITES[name]
    if num_clips is not None and num_clips > suite.num_clips:
        raise ConfigError(f"--clips {num_clips}: {name} has {suite.num_clips} clips")
    return replace(suite, num_clips=num_clips or suite.num_clips, use_video_files=use_video_files)


def run_suite(
    model: OneVision,
    methods: Mapping[Method, Compressor],
    suite: Suite,
    store: ResultStore,
    cache: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[SuiteAnswer]:
    """Ask every question of a suite with every compressor.

    Args:
        model: the model under test; its own compressor is not used.
        methods: compressors by name and retention ratio. What `RandomTokens` keeps is drawn anew for each clip.
        suite: clips and questions.
        store: one row for each answer, with the seed of the clip and whether the answer is right; a method and a
            clip that it has are not asked about again.
        cache: directory in which the visual tokens are kept for later runs.
        on_progress: called with the number of clips done and to do, over all methods.

    Returns:
        All answers of these methods, by method and clip.

    Raises:
        InputError: the store holds something else, or a prompt does not fit into the model's context.
    """
    parse_answers(store.rows, store.path)  # before hours of work
    num_all = suite.num_clips * len(methods)
    report = on_progress or (lambda num_done, num_all: None)
    if cache is not None:
        weights = fingerprint(model.vision_tower, model.projector)
        cache = cache / weights / f"{suite.name}{'-files' if suite.use_video_files else ''}"
    for num_clips, clip in enumerate(suite.clips, 1):
        missing = {method: c for method, c in methods.items() if (*method, clip) not in store.done}
        num_done = num_clips * len(methods) - len(missing)
        report(num_done, num_all)
        if not missing:
            continue
        tokens, tower, questions = _encode(model, suite, clip, needs_of(*missing.values()), cache)
        for method, compressor in missing.items():
            if isinstance(compressor, RandomTokens):
                seed = compressor.config.seed + clip
                compressor = RandomTokens(compressor.config.model_copy(update={"seed": seed}))
            answers = _answer(model, compressor, (tokens, tower), questions)
            store.append(_as_row(SuiteAnswer(suite.name, *method, clip, *answer)) for answer in answers)
            num_done += 1
            report(num_done, num_all)
    order = {method: i for i, method in enumerate(methods)}
    answers = parse_answers(store.rows, store.path)
    mine = [a for a in answers if (a.method, a.retention) in order and a.clip in suite.clips]
    return sorted(mine, key=lambda a: (order[a.method, a.retention], a.clip))


def _as_row(answer: SuiteAnswer) -> dict[str, Any]:
    return {**asdict(answer), "seed": [HELD_OUT, answer.clip], "right": answer.is_right}


def fingerprint(*parts: nn.Module) -> str:
    """Return a name for weights and their number format: other weights have another one."""
    digest = hashlib.sha256()
    for part in parts:
        for parameter in part.parameters():
            digest.update(str(parameter.dtype).encode())
            digest.update(parameter.detach().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def describe_run(name: str, model: OneVision, suite: Suite) -> dict[str, Any]:
    """Return what the answers to a question depend on, besides the compressor, and the machine."""
    return {
        "suite": suite.name,
        "seeds": [HELD_OUT, suite.first_clip],
        "video_files": suite.use_video_files,
        "model": name,
        "weights": fingerprint(model),
        "version": __version__,
        "machine": describe_machine(model.device),
    }


@torch.inference_mode()
def _answer(
    model: OneVision,
    compressor: Compressor,
    video: tuple[Float[Tensor, "f p d"], TowerState],
    questions: Sequence[Question],
) -> Iterator[tuple]:
    """Compress once and answer all questions about a clip; yields the last fields of `SuiteAnswer`."""
    watch = Stopwatch(model.device)
    media = encode_tokens(model, *video, compressor)
    watch.lap("compression")
    with Session(model, media, None, _SHORT_ANSWER, compressor=compressor) as session:
        answers = session.ask_together([question.text for question in questions])
    for question, answer in zip(questions, answers, strict=True):
        (result,) = answer.compressions
        numbers = (result.num_input, result.num_kept, watch.laps_s["compression"], answer.timings_s["total"])
        yield question.kind, question.text, question.answer, answer.text, *numbers


@torch.inference_mode()
def _encode(
    model: OneVision, suite: Suite, clip: int, needs: Needs, cache: Path | None
) -> tuple[Float[Tensor, "f p d"], TowerState, list[Question]]:
    """Return a clip's visual tokens, what else is needed, and questions; all but these is cached in a file."""
    geometry = model.geometry
    frames, questions = suite.show(clip, geometry.image_size, geometry.default_num_frames)
    path = None if cache is None else cache / f"{clip}.safetensors"
    if path is not None and path.exists():
        stored = load_file(path, str(model.device))
        if {name for name, is_needed in vars(needs).items() if is_needed} <= stored.keys():
            return stored.pop("tokens"), TowerState(**stored), questions
    pixels = preprocess_frames(frames, geometry.image_size, geometry.image_mean, geometry.image_std)
    tokens, tower = model.encode_video_with(pixels, needs)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        found = {"tokens": tokens, **{name: v for name, v in vars(tower).items() if v is not None}}
        save_file({name: value.cpu().contiguous() for name, value in found.items()}, partial)
        partial.replace(path)
    return tokens, tower, questions
