"""Where in the prompt kept tokens stand if they keep their places."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from llava_scissor.compression.indexing import count_labels
from llava_scissor.compression.protocol import (
    CompressionResult,
    Compressor,
    Needs,
    TowerState,
    compress_with,
    needs_of,
)


def mean_places(component: Int64[Tensor, " n"], count: int) -> Float64[Tensor, " k"]:
    """Return the mean index of the tokens of each component, NaN of none, the same to the last bit everywhere."""
    row = component.where(component >= 0, count)  # dropped tokens are counted in a row that is cut off
    total = torch.zeros(count + 1, dtype=torch.int64, device=row.device)
    total.index_add_(0, row, torch.arange(len(row), device=row.device))
    return (total.double() / count_labels(row, count + 1))[:count]


def numbers_in_order(component: Int64[Tensor, " n"], count: int) -> Int64[Tensor, " k"]:
    """Return the new number of each component if they are sorted by mean index (ties: as numbered before)."""
    order = mean_places(component, count).argsort(stable=True)
    return torch.empty_like(order).scatter_(0, order, torch.arange(count, device=order.device))


def at_places(result: CompressionResult) -> CompressionResult:
    """Give each kept token the mean index of its component, rounded half up, as its position.

    Args:
        result: its components are numbered by mean index.
    """
    positions = (mean_places(result.component, result.num_kept) + 0.5).floor().long()
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
    return at_places(in_order)


@dataclass(frozen=True)
class AtPlaces:
    """A compressor whose kept tokens keep their places, in the order of these.

    Attributes:
        compressor: what chooses and joins the tokens.
    """

    compressor: Compressor

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
