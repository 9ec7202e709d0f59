"""Keep what changed since the frame before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llava_scissor.compression.baselines.selection import (
    ExactBudget,
    distance,
    even_positions,
    select,
    top,
)
from llava_scissor.compression.protocol import CompressionResult, TowerState


@dataclass(frozen=True)
class EVS(ExactBudget):
    """Keep the first frame, and the tokens least similar to the one at the same place in the frame before.

    With fewer tokens than a frame has: evenly spread ones of the first frame (ours).

    Reference: Efficient Video Sampling (arXiv 2510.14624).
    """

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        size = tokens.shape[1]
        if count < size:
            return select(tokens, torch.tensor(even_positions(size, count), device=tokens.device))
        change = distance(unit[1:], unit[:-1])  # (F - 1, P)
        return select(
            tokens, top(torch.cat([change.new_full((1, size), torch.inf), change]).flatten(), count)
        )
