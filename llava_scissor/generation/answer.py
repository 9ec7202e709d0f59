"""The answer to a question, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llava_scissor.compression import CompressionResult
from llava_scissor.model import Turn
from llava_scissor.video import VideoClip


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model said, and how the answer came about.

    Attributes:
        text: the answer, without control tokens and without space around it.
        history: the conversation up to and with this answer, for a question that follows it.
        compressions: which visual tokens were kept: of the video, or of each image if that was asked for.
        clip: the frames that were looked at; None without a video.
        image_sizes: height and width in pixels of each image.
        timings_s: seconds of `decode` (of the video or the images), `preprocess`, `vision_tower` (with
            projector and pooling), `compression`, `prefill` (up to the logits of the first token), `generate`
            (all after that) and `total`, their sum. A stage that did not run for this question is not there.
        num_prompt_tokens: positions of the prompt, text and visual tokens together.
        num_visual_tokens: how many of them are visual tokens, newlines included.
        num_cached_tokens: how many of them were not computed for this question alone: they were there from an
            earlier one, or are shared with questions that were asked together with it.
        num_new_tokens: tokens of the answer, the one that ended it included.
        finish_reason: `stop` if the answer came to its end, `length` if it was cut at `max_new_tokens`.
    """

    text: str
    history: tuple[Turn, ...]
    compressions: tuple[CompressionResult, ...]
    clip: VideoClip | None
    image_sizes: tuple[tuple[int, int], ...]
    timings_s: dict[str, float]
    num_prompt_tokens: int
    num_visual_tokens: int
    num_cached_tokens: int
    num_new_tokens: int
    finish_reason: Literal["stop", "length"]

    @property
    def compression(self) -> CompressionResult | None:
        """Which visual tokens were kept, of the video or the only image; None if nothing was compressed."""
        return self.compressions[0] if len(self.compressions) == 1 else None
