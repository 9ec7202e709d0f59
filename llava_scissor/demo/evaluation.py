"""How well the demo model answers questions about held-out clips."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from llava_scissor.compression import Compressor
from llava_scissor.config import GenerationConfig
from llava_scissor.demo.clips import scene_of_seed, write_clip
from llava_scissor.demo.drawing import render
from llava_scissor.demo.questions import QUESTION_TYPES, Question, sample_questions
from llava_scissor.generation.decoding import find_stop_ids, generate_ids
from llava_scissor.generation.text import decode_text
from llava_scissor.model import OneVision
from llava_scissor.video import preprocess_frames, read_video

HELD_OUT = 9_000_000
"""First part of every held-out seed; no training seed begins with it."""

_SHORT_ANSWER = GenerationConfig(max_new_tokens=8)


@dataclass(frozen=True)
class EvaluatedQuestion:
    """One question, what was said, and how many visual tokens it was said from."""

    clip: int
    question: Question
    said: str
    num_kept: int
    num_input: int

    @property
    def is_right(self) -> bool:
        """Whether the answer is the expected one to the letter."""
        return self.said == self.question.answer


@torch.inference_mode()
def evaluate(
    model: OneVision,
    compressor: Compressor,
    num_clips: int,
    first_clip: int = 0,
    use_video_files: bool = False,
) -> Iterator[EvaluatedQuestion]:
    """Ask one question of every type that applies about each held-out clip.

    Args:
        model: the model under test.
        compressor: applied to the visual tokens of each clip once.
        num_clips: held-out clips, numbered from `first_clip`.
        first_clip: number of the first one.
        use_video_files: encode each clip as H.264 and read it back, instead of drawing the model's frames.

    Yields:
        Questions in the order of the clips.
    """
    stop_ids = find_stop_ids(model)
    for clip in range(first_clip, first_clip + num_clips):
        frames, questions = _clip(model, clip, use_video_files)
        geometry = model.geometry
        pixels = preprocess_frames(frames, geometry.image_size, geometry.image_mean, geometry.image_std)
        result = compressor(model.encode_video(pixels))
        for question in questions:
            embeds = model.embed_prompt(model.tokenize(question.text), result.tokens)
            ids = generate_ids(model, embeds, _SHORT_ANSWER)
            said = decode_text(ids, model.tokenizer, stop_ids)
            yield EvaluatedQuestion(clip, question, said, result.num_kept, result.num_input)


def accuracies(evaluated: list[EvaluatedQuestion]) -> dict[str, tuple[float, int]]:
    """Return share answered right and number of questions, for every type that was asked and for all."""
    groups = {kind: [e for e in evaluated if e.question.kind == kind] for kind in QUESTION_TYPES}
    groups["all"] = evaluated
    return {
        kind: (sum(e.is_right for e in group) / len(group), len(group))
        for kind, group in groups.items()
        if group
    }


def _clip(model: OneVision, clip: int, use_video_files: bool) -> tuple[torch.Tensor, list[Question]]:
    scene, rng = scene_of_seed((HELD_OUT, clip))
    num_frames = model.geometry.default_num_frames
    if not use_video_files:
        frames = torch.from_numpy(render(scene, rng, model.geometry.image_size))
        return frames, sample_questions(scene, rng)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "clip.mp4"
        write_clip(scene, rng, path)
        return read_video(path, num_frames).frames, sample_questions(scene, rng)
