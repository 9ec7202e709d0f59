"""Places and rows of tensors: found with few copies, and with few waits of the host for a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from llava_scissor.compression import precision


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


def masked(mask: Bool[Tensor, " n"], *columns: Tensor) -> tuple[Tensor, ...]:
    """Return the elements of some tensors where a mask is true; the host waits once."""
    places = mask.nonzero()[:, 0]
    return tuple(column.index_select(0, places) for column in columns)


def count_labels(labels: Int64[Tensor, " n"], size: int) -> Int64[Tensor, " k"]:
    """Count how often each of the labels 0..size-1 occurs; the host does not wait."""
    if precision.on_cpu(labels.device):
        return torch.bincount(labels, minlength=size)
    return labels.new_zeros(size).scatter_add_(0, labels, torch.ones_like(labels))


def find_nonzero(mask: Float[Tensor, "*shape"], limit: int) -> Int64[Tensor, " e"] | None:
    """Return the flat places of a mask's nonzero elements, or None if there are more than `limit`."""
    flat, width = mask.flatten(), 8 // mask.element_size()
    if flat.numel() % width:
        places = flat.nonzero()[:, 0]
    else:  # several elements at a time: most are zero
        word = flat.view(torch.int64).nonzero()[:, 0]
        if word.numel() > limit:
            return None
        few, place = flat.view(-1, width)[word].nonzero(as_tuple=True)
        places = word[few] * width + place
    return places if places.numel() <= limit else None
