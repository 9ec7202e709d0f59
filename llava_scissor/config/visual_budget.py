"""How many visual tokens a setting leaves, known before a video is opened."""

from __future__ import annotations

from dataclasses import dataclass

from llava_scissor.config.methods import NoCompressionConfig, RatioConfig, ScissorConfig
from llava_scissor.errors import InputError


@dataclass(frozen=True)
class VisualBudget:
    """How many visual tokens of a video the language model gets.

    Attributes:
        num_tokens: that many, or at most that many.
        is_exact: whether it is exactly that many, whatever the video shows.
    """

    num_tokens: int
    is_exact: bool


def budget(retention_ratio: float, num_tokens: int) -> int:
    """Return the exact number of tokens that a retention ratio keeps: `max(1, floor(ratio * num_tokens))`."""
    return max(1, int(retention_ratio * num_tokens))


def visual_budget(
    compression: ScissorConfig | RatioConfig | NoCompressionConfig, num_frames: int, tokens_per_frame: int
) -> VisualBudget:
    """Say how many visual tokens of a video stay, without looking at the video. Nothing of torch is imported.

    Newlines, which some checkpoints put behind the visual tokens, are not counted. `fastv` drops tokens inside
    the language model: the number is what its later layers see.

    Args:
        compression: the settings.
        num_frames: sampled frames, F.
        tokens_per_frame: visual tokens of one frame before the compressor, P.

    Returns:
        An exact number for a retention ratio alone and for `none`. A threshold depends on the video: with a ratio
        beside it the number is the ratio's, without one it is all F * P, and in both cases an upper bound.

    Raises:
        InputError: there are no frames, or no tokens in a frame.
    """
    if num_frames < 1 or tokens_per_frame < 1:
        raise InputError(
            f"got {num_frames} frames of {tokens_per_frame} visual tokens, expected at least 1 of each"
        )
    num_input = num_frames * tokens_per_frame
    if isinstance(compression, NoCompressionConfig):
        return VisualBudget(num_input, is_exact=True)
    ratio = compression.retention_ratio
    num_tokens = num_input if ratio is None else budget(ratio, num_input)
    uses_threshold = isinstance(compression, ScissorConfig) and compression.effective_tau is not None
    return VisualBudget(num_tokens, is_exact=not uses_threshold)
