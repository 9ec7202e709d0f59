"""Merge the most similar pairs until few enough tokens are left."""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor

from llava_scissor.compression.baselines.selection import ExactBudget, Survivors
from llava_scissor.compression.engines.tiled.similarity import directions
from llava_scissor.compression.merging import mean_by_label
from llava_scissor.compression.protocol import CompressionResult, TowerState
from llava_scissor.config import ToMeConfig


class ToMe(ExactBudget[ToMeConfig]):
    """Split the tokens alternately into two sets, merge the most similar pairs between them, and repeat.

    Each token of the first set has one partner, its most similar one in the second; at most half of all tokens go
    in a round. A merged token is the mean of all original ones in it. Ours: it runs once, behind the projector, on
    all tokens of the video, and tokens stay in order of time and position between rounds.

    Cost: N^2 * D / 4 multiply-adds for the first round, about a third more for the others.

    Its options are those of `ToMeConfig`.

    Reference: Token Merging (arXiv 2210.09461), made for the blocks of a vision transformer.
    """

    settings = ToMeConfig

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        survivors = Survivors(tokens)
        flat, everyone = survivors.flat, torch.arange(len(survivors.flat), device=tokens.device)
        left = label = everyone
        values, owner = flat.float(), everyone
        while len(left) > count:
            rows = directions(values).unit
            similarity, partner = best_partners(rows[0::2], rows[1::2])
            num_merged = min(len(left) // 2, len(left) - count)
            merged = similarity.argsort(descending=True, stable=True)[:num_merged]
            into = everyone.clone()
            into[left[0::2][merged]] = left[1::2][partner[merged]]
            owner = into[owner]
            left, label = owner.unique(return_inverse=True)
            values = mean_by_label(flat, label, len(left))
        survivors.add(left, values, everyone, label)
        return survivors.result()


def best_partners(rows: Float32[Tensor, "a d"], others: Float32[Tensor, "b d"]) -> tuple[Tensor, Tensor]:
    """Return for each row its highest similarity to the others (a,), and which has it (ties: the first)."""
    similarity = rows @ others.T
    partner = similarity.argmax(1)
    return similarity.gather(1, partner[:, None])[:, 0], partner
