"""Keep the tokens that are farthest from each other."""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor

from llava_scissor.compression.baselines.selection import ExactBudget, select
from llava_scissor.compression.protocol import CompressionResult, TowerState
from llava_scissor.config import DivPruneConfig

ROWS_EACH = 2**10


class DivPrune(ExactBudget[DivPruneConfig]):
    """Begin with the most isolated token of the video and add, each time, the one farthest from all that are kept.

    Distance is 1 - cosine. A token is never taken twice, whatever its duplicates.

    Cost: N^2 * D for the first token, N * D for each other; memory for N numbers and 1024 rows of N.

    Its options are those of `DivPruneConfig`.

    Reference: DivPrune (arXiv 2503.02175), all tokens of the video in one pool.
    """

    settings = DivPruneConfig

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        flat = unit.flatten(0, 1)
        return select(tokens, torch.stack(farthest_first(flat, count)).sort().values)


def farthest_first(flat: Float32[Tensor, "n d"], count: int) -> list[Tensor]:
    """Return the indices of the tokens in the order in which they are taken."""
    nearest = []
    for first, rows in enumerate(flat.split(ROWS_EACH)):
        similarity = rows @ flat.T
        similarity.diagonal(first * ROWS_EACH).fill_(-torch.inf)
        nearest.append(similarity.amax(1))
    gap = 1 - torch.cat(nearest)
    picks = [gap.argmax()]
    gap.fill_(torch.inf)
    while len(picks) < count:
        gap = torch.minimum(gap, 1 - flat @ flat[picks[-1]])
        gap[picks[-1]] = -torch.inf
        picks.append(gap.argmax())
    return picks
