"""Drop visual tokens inside the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor

from llava_scissor.compression.baselines.selection import top
from llava_scissor.compression.protocol import CompressionResult, Identity, Stage, budget


@dataclass(frozen=True)
class FastV:
    """Give the language model all visual tokens, and drop those that it attends to least after its first layers.

    The first `layer` layers run on everything. The others run on the text and `budget(retention_ratio, N)` visual
    tokens: those with the most attention from the last token of the prompt in the last of the first layers. They
    depend on the question, and are chosen once for it. `llava_scissor.generation.pruning` runs the model.

    Attributes:
        retention_ratio: visual tokens after `layer` layers / tokens before.
        layer: number of layers that see all tokens, at least 1; comparisons on video often have 3.

    Reference: FastV (arXiv 2403.06764).
    """

    stage: ClassVar[Stage] = "language_model"
    retention_ratio: float
    layer: int = 2

    def __call__(self, tokens: Float[Tensor, "f p d"]) -> CompressionResult:
        """Keep all tokens: none is dropped before the language model."""
        return Identity()(tokens)

    def select(self, attention: Float[Tensor, " n"]) -> Int64[Tensor, " k"]:
        """Return the ascending indices of the visual tokens to keep (ties: the first)."""
        return top(attention, budget(self.retention_ratio, len(attention)))
