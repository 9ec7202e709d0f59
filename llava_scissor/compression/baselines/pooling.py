"""Average neighbouring tokens of every frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from llava_scissor.compression.baselines.selection import Peer
from llava_scissor.compression.baselines.shares import even_shares
from llava_scissor.compression.merging import mean_by_label
from llava_scissor.compression.protocol import CompressionResult, TowerState, summarize
from llava_scissor.config import PoolingConfig
from llava_scissor.errors import InputError


class Pooling(Peer[PoolingConfig]):
    """Average the tokens of rectangular cells: exactly `budget(retention_ratio, N)`, an even share a frame.

    Cells do not overlap and cover every token, so none is dropped. With fewer tokens than frames, runs of
    whole frames are averaged to one token each.

    Its options are those of `PoolingConfig`.

    Reference: adaptive average pooling as in PLLaVA (arXiv 2404.16994), after the projector and with an
    exact budget.
    """

    settings = PoolingConfig

    def _choose(self, tokens: Tensor, count: int, tower: TowerState) -> CompressionResult:
        num_frames, size, _ = tokens.shape
        if math.isqrt(size) ** 2 != size:
            raise InputError(
                f"pooling needs a square grid of tokens in each frame, got {size}; choose another method"
            )
        cell = _cells(num_frames, math.isqrt(size), count).to(tokens.device)
        pooled = mean_by_label(tokens.flatten(0, 1), cell, count)
        return summarize(tokens, pooled.to(tokens.dtype), cell, cell)


def _cells(num_frames: int, side: int, target: int) -> Tensor:
    """Return the cell of every token (F * side * side,)."""
    if target < num_frames:
        frame_cell = torch.arange(num_frames) * target // num_frames
        return frame_cell.repeat_interleave(side * side)
    parts, first = [], 0
    for share in even_shares(target, num_frames):
        parts.append(first + _grid_cells(side, share))
        first += share
    return torch.cat(parts)


def _grid_cells(side: int, count: int) -> Tensor:
    """Cut a square grid into `count` cells: bands of rows, cut into nearly equal numbers of columns."""
    num_bands = min(max(round(math.sqrt(count)), -(-count // side)), side, count)
    cells, first = torch.empty(side, side, dtype=torch.int64), 0
    edges = [band * side // num_bands for band in range(num_bands + 1)]
    for band, share in enumerate(even_shares(count, num_bands)):
        cells[edges[band] : edges[band + 1]] = first + torch.arange(side) * share // side
        first += share
    return cells.flatten()
