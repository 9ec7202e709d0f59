"""Keep tokens drawn at random."""

from __future__ import annotations

import torch
from torch import Tensor

from llava_scissor.compression.baselines.selection import Peer, select
from llava_scissor.compression.protocol import CompressionResult, TowerState
from llava_scissor.config import RandomConfig


class RandomTokens(Peer[RandomConfig]):
    """Keep tokens drawn without replacement, each as likely as any other, in their order.

    The generator is a private one on the CPU, so that every device keeps the same tokens. Its options are those of
    `RandomConfig`.
    """

    settings = RandomConfig

    def _choose(self, tokens: Tensor, count: int, tower: TowerState) -> CompressionResult:
        num_input = tokens.shape[0] * tokens.shape[1]
        order = torch.randperm(num_input, generator=torch.Generator().manual_seed(self.config.seed))
        kept = order[:count].sort().values
        return select(tokens, kept.to(tokens.device))
