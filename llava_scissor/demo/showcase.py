"""The shipped model on the shipped clips, with all tokens and with fewer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llava_scissor.compression import build_compressor
from llava_scissor.config import GenerationConfig, ScissorConfig, VideoConfig
from llava_scissor.demo.clips import demo_clips
from llava_scissor.demo.questions import Question
from llava_scissor.generation import Answer, ask
from llava_scissor.model import load_model
from llava_scissor.video import read_video


@dataclass(frozen=True)
class ShowcaseRow:
    """One question about one clip and the answers at every retention ratio.

    Attributes:
        clip: name of the video file.
        question: the question with its right answer.
        answers: one for each retention ratio asked for, in their order.
    """

    clip: str
    question: Question
    answers: tuple[Answer, ...]


def showcase(retention_ratios: Sequence[float]) -> Iterator[ShowcaseRow]:
    """Ask every question of every shipped clip at every retention ratio; 1.0 keeps all tokens.

    Yields:
        A row as soon as its questions are answered.
    """
    model = load_model("demo")
    compressors = [build_compressor(ScissorConfig(retention_ratio=ratio)) for ratio in retention_ratios]
    short = GenerationConfig(max_new_tokens=8)
    for clip in demo_clips():
        frames = read_video(clip.path, model.geometry.default_num_frames)
        for question in clip.questions:
            answers = tuple(
                ask(model, frames, question.text, VideoConfig(), short, compressor=compressor)
                for compressor in compressors
            )
            yield ShowcaseRow(clip.path.name, question, answers)
