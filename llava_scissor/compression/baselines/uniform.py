"""Keep tokens at even distances inside every frame, or whole frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llava_scissor.compression.baselines.selection import Peer, select
from llava_scissor.compression.baselines.shares import even_positions, even_shares
from llava_scissor.compression.protocol import CompressionResult, TowerState
from llava_scissor.config import UniformConfig, UniformFramesConfig


class UniformTokens(Peer[UniformConfig]):
    """Keep exactly `budget(retention_ratio, N)` tokens: an even share of every frame, evenly spread in it.

    With fewer tokens than frames, evenly spread frames keep one token each.
    """

    settings = UniformConfig

    def _choose(self, tokens: Tensor, count: int, tower: TowerState) -> CompressionResult:
        return _spread(tokens, range(len(tokens)), count)


class UniformFrames(Peer[UniformFramesConfig]):
    """Keep exactly `budget(retention_ratio, N)` tokens: evenly spread frames, as few as can hold them.

    Each is kept whole if the budget is a multiple of a frame; otherwise each gets an even share, evenly spread.
    """

    settings = UniformFramesConfig

    def _choose(self, tokens: Tensor, count: int, tower: TowerState) -> CompressionResult:
        num_frames, size, _ = tokens.shape
        return _spread(tokens, even_positions(num_frames, -(-count // size)), count)


def _spread(tokens: Tensor, frames: Sequence[int], target: int) -> CompressionResult:
    """Keep an even share of each of some frames, evenly spread in it."""
    size, shares = tokens.shape[1], even_shares(target, len(frames))
    kept = [f * size + p for f, n in zip(frames, shares, strict=True) for p in even_positions(size, n)]
    return select(tokens, torch.tensor(kept, device=tokens.device))
