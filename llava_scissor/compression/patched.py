"""Rows of a matrix some of which are others, without a copy of the rest."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float32, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PatchedRows:
    """A matrix (m, d) made of some rows of one matrix and all rows of another.

    Attributes:
        old: the one.
        number: which row of `old` each row is, where it is not new (m,).
        is_new: which rows are those of `new`, in order.
        new: the other.
    """

    old: Float32[Tensor, "k d"]
    number: Int64[Tensor, " m"]
    is_new: Bool[Tensor, " m"]
    new: Float32[Tensor, "n d"]

    @property
    def shape(self) -> tuple[int, int]:
        """(m, d)."""
        return len(self.number), self.old.shape[1]

    def __getitem__(self, rows: slice | Tensor) -> Float32[Tensor, "r d"]:
        """Return some rows."""
        found = self.old.index_select(0, self.number[rows])
        is_new = self.is_new[rows]
        found[is_new] = self.new[(self.is_new.cumsum(0) - 1)[rows][is_new]]
        return found
