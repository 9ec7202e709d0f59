"""Keep what is attended to and unlike the rest; cluster what is left."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from llava_scissor.compression.baselines.clustering import density_peaks
from llava_scissor.compression.baselines.selection import ExactBudget, Survivors
from llava_scissor.compression.merging import mean_by_label
from llava_scissor.compression.protocol import CompressionResult, Needs, TowerState
from llava_scissor.config import UnifiedConfig


class Unified(ExactBudget[UnifiedConfig]):
    """Visit tokens by falling attention and keep those unlike all kept before; cluster all others, of all frames.

    Not stated and therefore ours: that tokens are visited by falling attention, that the ratio of clusters is one
    of the budget, and the number of neighbours. Places in the pool that stay free go to clusters.

    Cost: memory for the distances of all pairs of clustered tokens.

    Its options are those of `UnifiedConfig`.

    Reference: Unified Spatiotemporal token compression (arXiv 2603.21957), without its part inside the language
    model.
    """

    settings = UnifiedConfig

    needs: ClassVar[Needs] = Needs(attention=True)

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        assert tower.attention is not None
        survivors, order = Survivors(tokens), tower.attention.flatten().argsort(descending=True, stable=True)
        for_pool = count - round(self.config.cluster_ratio * count)
        pool = order[pick_unlike(unit.flatten(0, 1)[order], for_pool, self.config.pool_threshold)]
        survivors.add(pool)
        if count > len(pool):
            rest = survivors.is_free.nonzero().flatten()
            rows = survivors.flat[rest].float()
            centres, label = density_peaks(rows, count - len(pool), self.config.num_neighbours)
            survivors.add(rest[centres], mean_by_label(rows, label, len(centres)), rest, label)
        return survivors.result()


def pick_unlike(unit: Float32[Tensor, "n d"], at_most: int, tau: float) -> Int64[Tensor, " k"]:
    """Go through tokens in their order and take those whose similarity to all taken before is below tau."""
    nearest, picks = unit.new_full((len(unit),), -torch.inf), []
    while len(picks) < at_most:
        is_unlike = nearest < tau
        pick = is_unlike.int().argmax()
        if not bool(is_unlike[pick]):
            break
        picks.append(pick)
        nearest = torch.maximum(nearest, unit @ unit[pick])
        nearest[pick] = torch.inf
    return torch.stack(picks)
