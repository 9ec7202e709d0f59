"""Keep what differs from an earlier frame, position by position: EVS and DyCoke."""

from __future__ import annotations

import torch
from torch import Tensor

from llava_scissor.compression.baselines.selection import ExactBudget, distance, select, top, top_per_frame
from llava_scissor.compression.baselines.shares import even_positions, even_shares
from llava_scissor.compression.protocol import CompressionResult, TowerState
from llava_scissor.config import DyCokeConfig, EVSConfig


class EVS(ExactBudget[EVSConfig]):
    """Keep the first frame, and the tokens least similar to the one at the same position in the frame before.

    With fewer tokens than a frame has: evenly spread ones of the first frame (ours).

    Its options are those of `EVSConfig`.

    Reference: Efficient Video Sampling (arXiv 2510.14624).
    """

    settings = EVSConfig

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        if count < tokens.shape[1]:
            return _part_of_first_frame(tokens, count)
        change = distance(unit, unit.roll(1, 0))  # (F, P)
        change[0] = torch.inf
        return select(tokens, top(change.flatten(), count))


class DyCoke(ExactBudget[DyCokeConfig]):
    """Keep the first frame of every window whole; of the others the tokens that differ most.

    In a window of four, frames 1 and 2 are compared with frame 0, and frame 3 with frame 2, position by position.

    Ours, for an exact budget: windows double until their first frames fit. The frame at offset j is then compared
    with the one at j without its lowest bit. What is left is split evenly over the other frames. With fewer tokens
    than a frame has, evenly spread ones of the first frame stay.

    Its options are those of `DyCokeConfig`.

    Reference: the temporal merging of DyCoke (arXiv 2411.15024), without its pruning of the cache.
    """

    settings = DyCokeConfig

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        num_frames, size, _ = tokens.shape
        if count < size:
            return _part_of_first_frame(tokens, count)
        window = self.config.window_size
        while -(-num_frames // window) * size > count:
            window *= 2
        offset = [frame % window for frame in range(num_frames)]
        partner = [frame - (j & -j) for frame, j in enumerate(offset)]
        num_whole = offset.count(0)
        shares = iter(even_shares(count - num_whole * size, num_frames - num_whole))
        kept = top_per_frame(distance(unit, unit[partner]), [next(shares) if j else size for j in offset])
        return select(tokens, kept)


def _part_of_first_frame(tokens: Tensor, count: int) -> CompressionResult:
    return select(tokens, torch.tensor(even_positions(tokens.shape[1], count), device=tokens.device))
