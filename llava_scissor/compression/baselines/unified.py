"""Keep what is attended to and unlike the rest; cluster what is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from llava_scissor.compression.baselines.clustering import density_peaks
from llava_scissor.compression.baselines.selection import ExactBudget, collect
from llava_scissor.compression.merging import mean_by_label
from llava_scissor.compression.protocol import CompressionResult, Needs, TowerState


@dataclass(frozen=True)
class Unified(ExactBudget):
    """Visit tokens by falling attention and keep those unlike all kept before; cluster all others, of all frames.

    Not stated and therefore ours: that tokens are visited by falling attention, that the ratio of clusters is one
    of the budget, and the number of neighbours. Places in the pool that stay free go to clusters.

    Attributes:
        tau: similarity to a kept token from which on a token is not kept.
        cluster_ratio: share of the budget that is for clusters.
        num_neighbours: from which densities are taken.

    Cost: memory for the distances of all pairs of clustered tokens.

    Reference: Unified Spatiotemporal token compression (arXiv 2603.21957), without its part inside the language
    model.
    """

    needs: ClassVar[Needs] = Needs(attention=True)
    tau: float = 0.7
    cluster_ratio: float = 0.3
    num_neighbours: int = 7

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        assert tower.attention is not None
        flat = tokens.flatten(0, 1)
        order = tower.attention.flatten().argsort(descending=True, stable=True)
        pool = order[
            pick_unlike(unit.flatten(0, 1)[order], count - round(self.cluster_ratio * count), self.tau)
        ]
        values, owner = flat.clone(), torch.full((len(flat),), -1, device=flat.device)
        owner[pool] = pool
        rest = (owner < 0).nonzero().flatten()
        num_clusters = count - len(pool)
        if num_clusters:
            rows = flat[rest].float()
            centres, label = density_peaks(rows, num_clusters, self.num_neighbours)
            owner[rest] = rest[centres][label]
            values[rest[centres]] = mean_by_label(rows, label, num_clusters).to(values.dtype)
        return collect(tokens, values, owner)


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
