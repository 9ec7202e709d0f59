"""Positions in the prompt for kept tokens: the mean position of the tokens in their component."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from llava_scissor.compression.merging import count_labels
from llava_scissor.compression.protocol import (
    CompressionResult,
    Compressor,
    Needs,
    TowerState,
    compress_with,
    needs_of,
    stage_of,
)
from llava_scissor.errors import ConfigError


def mean_positions(component: Int64[Tensor, " n"], count: int) -> Float64[Tensor, " k"]:
    """Return the mean index of the tokens of each component, NaN where there are none; exact on every device."""
    row = component.where(component >= 0, count)  # dropped tokens are counted in a row that is cut off
    total = torch.zeros(count + 1, dtype=torch.int64, device=row.device)
    total.index_add_(0, row, torch.arange(len(row), device=row.device))
    return (total.double() / count_labels(row, count + 1))[:count]


def numbers_in_order(component: Int64[Tensor, " n"], count: int) -> Int64[Tensor, " k"]:
    """Return the new number of each component if they are sorted by mean index (ties: as numbered before)."""
    order = mean_positions(component, count).argsort(stable=True)
    return torch.empty_like(order).scatter_(0, order, torch.arange(count, device=order.device))


def with_positions(result: CompressionResult) -> CompressionResult:
    """Give each kept token the mean index of its component, rounded half up, as its position.

    Args:
        result: its components are numbered by mean index.
    """
    positions = (mean_positions(result.component, result.num_kept) + 0.5).floor().long()
    return replace(result, positions=positions)


def keep_positions(result: CompressionResult) -> CompressionResult:
    """Sort the kept tokens by the mean index of their components, and give it to them as their positions."""
    number = numbers_in_order(result.component, result.num_kept)
    order = number.argsort()
    renumbered = torch.cat([number, number.new_tensor([-1])])  # -1 stays -1
    in_order = replace(
        result,
        tokens=result.tokens[order],
        component=renumbered[result.component],
        assignment=renumbered[result.assignment],
        sizes=result.sizes[order],
        frame_span=result.frame_span[order],
    )
    return with_positions(in_order)


@dataclass(frozen=True)
class KeepPositions:
    """A compressor around another, whose kept tokens keep their positions and are sorted by them.

    Attributes:
        compressor: what chooses and merges the tokens, of the stage `projector`.

    Raises:
        ConfigError: the compressor works inside the language model, where tokens keep their positions anyway.
    """

    compressor: Compressor

    def __post_init__(self) -> None:
        if stage_of(self.compressor) != "projector":
            raise ConfigError(
                f"KeepPositions wraps a compressor that works behind the projector, got {self.compressor!r}, "
                "which works inside the language model and keeps positions anyway: use it as it is"
            )

    @property
    def needs(self) -> Needs:
        """What the compressor looks at besides the tokens."""
        return needs_of(self.compressor)

    def __call__(self, tokens: Float[Tensor, "f p d"], tower: TowerState | None = None) -> CompressionResult:
        """Compress one video, and give each kept token the mean index of its component as its position.

        Raises:
            InputError: as the compressor.
        """
        return keep_positions(compress_with(self.compressor, tokens, tower))
