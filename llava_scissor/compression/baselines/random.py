"""Keep tokens drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from llava_scissor.compression.baselines.selection import select
from llava_scissor.compression.protocol import CompressionResult, budget, check_tokens


@dataclass(frozen=True)
class RandomTokens:
    """Keep exactly `budget(retention_ratio, N)` tokens, each as likely as any other, in their order.

    Attributes:
        retention_ratio: tokens kept / tokens before.
        seed: of a private CPU generator: every device keeps the same tokens.
    """

    retention_ratio: float
    seed: int = 0

    def __call__(self, tokens: Float[Tensor, "f p d"]) -> CompressionResult:
        """Compress one video."""
        check_tokens(tokens)
        num_input = tokens.shape[0] * tokens.shape[1]
        order = torch.randperm(num_input, generator=torch.Generator().manual_seed(self.seed))
        kept = order[: budget(self.retention_ratio, num_input)].sort().values
        return select(tokens, kept.to(tokens.device))
