"""From the vision tower's width to the language model's."""

from __future__ import annotations

from torch import nn


class Projector(nn.Sequential):
    """Linear, exact GELU (by erf), Linear, with biases: (F, N, vision width) -> (F, N, language width).

    Reference: `mlp2x_gelu` upstream, where the weights are called `0` and `2` like in this Sequential.
    """

    def __init__(self, vision_width: int, language_width: int) -> None:
        super().__init__(
            nn.Linear(vision_width, language_width),
            nn.GELU(approximate="none"),
            nn.Linear(language_width, language_width),
        )
