"""Keep what is attended to in each frame, and merge the rest into tokens at even distances."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from llava_scissor.compression.baselines.selection import ExactBudget, Survivors, top
from llava_scissor.compression.baselines.shares import even_shares
from llava_scissor.compression.baselines.tome import best_partners
from llava_scissor.compression.merging import mean_by_label
from llava_scissor.compression.protocol import CompressionResult, Needs, TowerState
from llava_scissor.config import VisionZipConfig


class VisionZip(ExactBudget[VisionZipConfig]):
    """Keep in each frame the tokens with the most attention, and contextual ones that merge the rest.

    Contextual tokens begin as every n-th of the rest; each other one joins the one with the most similar key.
    Ours: an even share of the budget for each frame, and means of what is merged, since it happens behind the
    projector and the pooling; the sum of the published code doubles the length of a token.

    Its options are those of `VisionZipConfig`.

    Reference: VisionZip (arXiv 2412.04467).
    """

    settings = VisionZipConfig

    needs: ClassVar[Needs] = Needs(attention=True, keys=True)

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        assert tower.attention is not None
        assert tower.keys is not None
        survivors, index = Survivors(tokens), torch.arange(tokens[..., 0].numel(), device=tokens.device)
        keys = functional.normalize(tower.keys.float(), dim=-1, eps=1e-12).flatten(0, 1)
        shares = even_shares(count, len(tokens))
        for frame, attention, share in zip(index.view(len(tokens), -1), tower.attention, shares, strict=True):
            num_dominant = min(share, max(1, round(share * self.config.dominant_ratio)))
            survivors.add(frame[top(attention, num_dominant)])
            if num_merged := share - num_dominant:
                rest = frame[survivors.is_free[frame]]
                starts = torch.arange(num_merged, device=tokens.device) * (len(rest) // num_merged)
                _, label = best_partners(keys[rest], keys[rest[starts]])
                label[starts] = torch.arange(num_merged, device=tokens.device)
                values = mean_by_label(survivors.flat[rest], label, num_merged)
                survivors.add(rest[starts], values, rest, label)
        return survivors.result(is_sorted=False)
