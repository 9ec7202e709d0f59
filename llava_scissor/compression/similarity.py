"""Cosine similarity between the tokens of many sets at once, a block at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from llava_scissor.errors import InputError

BLOCK_ENTRIES = 2**24
"""Similarities held at a time by default: 64 MiB of float32."""

KEPT_BLOCKS = 8
"""Similarities that are looked at more than once are kept up to this many blocks, and computed again beyond."""

NEVER = -1.0
"""Similarity of a zero-norm token in a graph: no threshold a config accepts lets it join anything."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Tokens as unit vectors.

    Attributes:
        unit: float32 unit vectors; zero rows for zero-norm tokens.
        is_zero: which tokens have zero norm.
        has_zero: whether any has.
    """

    unit: Float32[Tensor, "*batch d"]
    is_zero: Bool[Tensor, "*batch"]
    has_zero: bool


def directions(tokens: Float[Tensor, "*batch d"]) -> Directions:
    """Scale tokens to unit length in float32.

    Each token is first divided by its largest magnitude, so that neither its squares overflow nor its norm
    underflows.

    Args:
        tokens: any floating dtype; not modified.

    Returns:
        Unit vectors on the tokens' device.

    Raises:
        InputError: a token holds NaN, infinity, or a value beyond float32; names the first one.
    """
    unit = tokens.to(torch.float32, copy=True)
    largest = torch.linalg.vector_norm(unit, math.inf, dim=-1, keepdim=True)
    is_zero = largest.squeeze(-1) == 0
    all_finite, has_zero = torch.stack([largest.isfinite().all(), is_zero.any()]).tolist()
    if not all_finite:
        place = (~largest.squeeze(-1).isfinite()).nonzero()[0].tolist()
        name = "frame {}, token {}".format(*place) if len(place) == 2 else f"token {place[0]}"
        raise InputError(
            f"visual tokens must be finite in float32, got NaN or infinity at {name}; "
            f"check the vision tower's output, and load float16 checkpoints in bfloat16 if they overflow"
        )
    unit.div_(largest.where(largest > 0, 1))
    norm = torch.linalg.vector_norm(unit, dim=-1, keepdim=True)
    unit.div_(norm.where(norm > 0, 1))
    return Directions(unit, is_zero, has_zero)


@dataclass(frozen=True, eq=False)
class SimilarityBlock:
    """Similarities of some rows with every token of their sets.

    Vertices are numbered across all sets: token i of set b is b * n + i.

    Attributes:
        values: similarity of row and column, in [-1, 1] (sets, rows, n).
        rows: vertex of each row (sets, rows).
        columns: vertex of each column (sets, n).
    """

    values: Float32[Tensor, "g r n"]
    rows: Int64[Tensor, "g r"]
    columns: Int64[Tensor, "g n"]


@dataclass(frozen=True, eq=False)
class TokenSets:
    """B sets of n tokens whose similarity graphs are looked at together.

    Attributes:
        directions: the tokens (B, n, D).
        sample: the tokens of each set whose edges are looked at (B, S), ascending; None for all.
    """

    directions: Directions
    sample: Int64[Tensor, "b s"] | None = None

    @property
    def num_vertices(self) -> int:
        """Tokens in all sets."""
        return self.directions.is_zero.numel()

    @property
    def num_entries(self) -> int:
        """Similarities that are looked at."""
        num_sets, size = self.directions.is_zero.shape
        return num_sets * (size if self.sample is None else self.sample.shape[1]) * size

    def is_sampled(self) -> Bool[Tensor, " v"] | None:
        """Tell for each vertex whether its edges are looked at; None where all are."""
        if self.sample is None:
            return None
        mask = torch.zeros_like(self.directions.is_zero)
        return mask.scatter_(1, self.sample, True).flatten()

    @property
    def repeated_blocks(self) -> Iterable[SimilarityBlock]:
        """The blocks, for looking at them more than once."""
        return self.blocks() if self._kept_blocks is None else self._kept_blocks

    @cached_property
    def _kept_blocks(self) -> list[SimilarityBlock] | None:
        return list(self.blocks()) if self.num_entries <= KEPT_BLOCKS * BLOCK_ENTRIES else None

    def blocks(self) -> Iterator[SimilarityBlock]:
        """Yield the similarities of all looked-at rows, at most `BLOCK_ENTRIES` at a time (or one row).

        Cost: S * n * D multiply-adds for each set; memory for one block.
        """
        num_sets, size = self.directions.is_zero.shape
        num_rows = size if self.sample is None else self.sample.shape[1]
        sets_each = max(1, BLOCK_ENTRIES // (num_rows * size))
        rows_each = num_rows if sets_each > 1 else max(1, BLOCK_ENTRIES // size)
        vertex = torch.arange(self.num_vertices, device=self.directions.unit.device).view(num_sets, size)
        for first in range(0, num_sets, sets_each):
            sets = slice(first, first + sets_each)
            for top in range(0, num_rows, rows_each):
                rows = slice(top, top + rows_each)
                values = self._similarity(sets, rows)
                yield SimilarityBlock(values, self._pick(vertex[sets], sets, rows), vertex[sets])

    def _pick(self, values: Tensor, sets: slice, rows: slice) -> Tensor:
        """Return the values (g, n, ...) of the looked-at tokens (g, r, ...)."""
        if self.sample is None:
            return values[:, rows]
        index = self.sample[sets, rows]
        return values.gather(
            1, index if values.ndim == 2 else index[..., None].expand(-1, -1, values.shape[2])
        )

    def _similarity(self, sets: slice, rows: slice) -> Float32[Tensor, "g r n"]:
        unit, is_zero = self.directions.unit[sets], self.directions.is_zero[sets]
        similarity = torch.bmm(self._pick(unit, sets, rows), unit.transpose(1, 2)).clamp_(-1, 1)
        if self.directions.has_zero:
            similarity.masked_fill_(self._pick(is_zero, sets, rows)[..., None] | is_zero[:, None], NEVER)
        return similarity


def draw_sample(
    num_sets: int, size: int, sample_size: int | None, seed: int, device: torch.device
) -> Int64[Tensor, "b s"] | None:
    """Draw the same number of distinct tokens from every set.

    Args:
        num_sets: number of sets.
        size: tokens in each.
        sample_size: tokens to draw from each; None for all.
        seed: of a private CPU generator, so that every device draws the same tokens.
        device: where the result goes.

    Returns:
        Ascending indices (num_sets, sample_size), or None where that would be all tokens.
    """
    if sample_size is None or sample_size >= size:
        return None
    keys = torch.rand(num_sets, size, generator=torch.Generator().manual_seed(seed))
    return keys.argsort(dim=1)[:, :sample_size].sort(dim=1).values.to(device)
