"""Keep what is attended to in each frame, and merge the rest into tokens at even distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from llava_scissor.compression.baselines.selection import ExactBudget, collect, even_shares, top
from llava_scissor.compression.baselines.tome import best_partners
from llava_scissor.compression.merging import mean_by_label
from llava_scissor.compression.protocol import CompressionResult, Needs, TowerState


@dataclass(frozen=True)
class VisionZip(ExactBudget):
    """Keep in each frame the tokens with the most attention, and contextual ones that merge the rest.

    Contextual tokens begin as every n-th of the rest; each other one joins the one with the most similar key.
    Ours: an even share of the budget for each frame, and means of what is merged, since it happens behind the
    projector and the pooling; the sum of the published code doubles the length of a token.

    Attributes:
        dominant: share of dominant tokens; published: 54 of 64.

    Reference: VisionZip (arXiv 2412.04467).
    """

    needs: ClassVar[Needs] = Needs(attention=True, keys=True)
    dominant: float = 54 / 64

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        assert tower.attention is not None
        assert tower.keys is not None
        size, flat = tokens.shape[1], tokens.flatten(0, 1)
        keys = functional.normalize(tower.keys.float(), dim=-1, eps=1e-12)
        values, kept = flat.clone(), []
        owner = torch.full((len(flat),), -1, device=flat.device)
        for frame, share in enumerate(even_shares(count, len(tokens))):
            num_dominant = min(share, max(1, round(share * self.dominant)))
            chosen = top(tower.attention[frame], num_dominant) + frame * size
            owner[chosen] = chosen
            kept.append(chosen)
            if share > num_dominant:
                rest = (owner[frame * size : (frame + 1) * size] < 0).nonzero().flatten()
                num_merged = share - num_dominant
                places = torch.arange(num_merged, device=flat.device) * (len(rest) // num_merged)
                targets = rest[places]
                _, label = best_partners(keys[frame, rest], keys[frame, targets])
                label[places] = torch.arange(num_merged, device=flat.device)
                rest, targets = rest + frame * size, targets + frame * size
                owner[rest] = targets[label]
                values[targets] = mean_by_label(flat[rest], label, num_merged).to(values.dtype)
                kept.append(targets)
        return collect(tokens, values, owner, torch.cat(kept))
