"""Drop visual tokens inside the language model."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor

from llava_scissor.compression.baselines.selection import top
from llava_scissor.compression.configured import Configured
from llava_scissor.compression.protocol import CompressionResult, Identity, Stage
from llava_scissor.config import FastVConfig
from llava_scissor.config.visual_budget import budget


class FastV(Configured[FastVConfig]):
    """Give the language model all visual tokens, and drop those that it attends to least after its first layers.

    The first `layer` layers run on everything. The others run on the text and `budget(retention_ratio, N)` visual
    tokens: those with the most attention from the last token of the prompt in the last of the first layers. They
    depend on the question, and are chosen once for it. `llava_scissor.generation.fastv` runs the model.

    Its options are those of `FastVConfig`.

    Reference: FastV (arXiv 2403.06764).
    """

    settings = FastVConfig

    stage: ClassVar[Stage] = "language_model"

    @property
    def layer(self) -> int:
        """Number of layers that see all tokens."""
        return self.config.layer

    def __call__(self, tokens: Float[Tensor, "f p d"]) -> CompressionResult:
        """Keep all tokens: none is dropped before the language model."""
        return Identity()(tokens)

    def select(self, attention: Float[Tensor, " n"]) -> Int64[Tensor, " k"]:
        """Return the ascending indices of the visual tokens to keep (ties: the first)."""
        return top(attention, budget(self.config.retention_ratio, len(attention)))
