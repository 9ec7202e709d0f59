"""Keep the longest tokens."""

from __future__ import annotations

from torch import Tensor
from torch.linalg import vector_norm

from llava_scissor.compression.baselines.selection import ExactBudget, select, top
from llava_scissor.compression.protocol import CompressionResult, TowerState
from llava_scissor.config import L2NormConfig


class L2Norm(ExactBudget[L2NormConfig]):
    """Keep the tokens of the largest norm in the whole video.

    Its options are those of `L2NormConfig`.

    Reference: a selector of the ablation of LLaVA-Scissor (arXiv 2506.21862); that the largest are kept, and of
    all frames together, is our reading.
    """

    settings = L2NormConfig

    def _keep(self, tokens: Tensor, unit: Tensor, count: int, tower: TowerState) -> CompressionResult:
        return select(tokens, top(vector_norm(tokens.float(), dim=-1).flatten(), count))
