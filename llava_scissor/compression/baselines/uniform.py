"""Keep tokens at even distances inside every frame, or whole frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from llava_scissor.compression.baselines.selection import select
from llava_scissor.compression.baselines.shares import even_positions, even_shares
from llava_scissor.compression.protocol import CompressionResult, budget, check_tokens


@dataclass(frozen=True)
class UniformTokens:
    """Keep exactly `budget(retention_ratio, N)` tokens: an even share of every frame, evenly spread in it.

    With fewer tokens than frames, evenly spread frames keep one token each.

    Attributes:
        retention_ratio: tokens kept / tokens before.
    """

    retention_ratio: float

    def __call__(self, tokens: Float[Tensor, "f p d"]) -> CompressionResult:
        """Compress one video."""
        check_tokens(tokens)
        num_frames, size, _ = tokens.shape
        return _spread(tokens, range(num_frames), budget(self.retention_ratio, num_frames * size))


@dataclass(frozen=True)
class UniformFrames:
    """Keep exactly `budget(retention_ratio, N)` tokens: evenly spread frames, as few as can hold them.

    Each is kept whole if the budget is a multiple of a frame; otherwise each gets an even share, evenly spread.

    Attributes:
        retention_ratio: tokens kept / tokens before.
    """

    retention_ratio: float

    def __call__(self, tokens: Float[Tensor, "f p d"]) -> CompressionResult:
        """Compress one video."""
        check_tokens(tokens)
        num_frames, size, _ = tokens.shape
        target = budget(self.retention_ratio, num_frames * size)
        return _spread(tokens, even_positions(num_frames, -(-target // size)), target)


def _spread(tokens: Tensor, frames: Sequence[int], target: int) -> CompressionResult:
    """Keep an even share of each of some frames, evenly spread in it."""
    size, shares = tokens.shape[1], even_shares(target, len(frames))
    kept = [f * size + p for f, n in zip(frames, shares, strict=True) for p in even_positions(size, n)]
    return select(tokens, torch.tensor(kept, device=tokens.device))
