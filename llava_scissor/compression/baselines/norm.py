"""Keep the longest tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.linalg import vector_norm

from llava_scissor.compression.baselines.selection import ExactBudget, select, top
from llava_scissor.compression.protocol import CompressionResult, TowerState


@dataclass(frozen=True)
class L2Norm(ExactBudget):
    """Keep the tokens of the largest norm in the whole video.

    Reference: a selector of the ablation of LLaVA-Scissor (arXiv 2506.21862); that the largest are kept, and of
    all frames together, is our reading.
    """

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        return select(tokens, top(vector_norm(tokens.float(), dim=-1).flatten(), count))
