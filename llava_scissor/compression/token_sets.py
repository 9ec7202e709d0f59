"""Many sets of tokens and the pairs of each, a tile of pairs at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from llava_scissor.compression import precision
from llava_scissor.compression.similarity import (
    NEVER,
    Directions,
    exceeds,
    similarity_of_all,
    similarity_of_pairs,
)

BLOCK_SIZE = 2**22
"""Similarities held at a time by default on a CPU: 8 MiB of bfloat16."""

BLOCK_SIZE_GPU = 2**26
"""The same on other devices: 256 MiB of float32."""

WHOLE_SETS = 2**19
"""Similarities of whole sets held at a time on a CPU; they stay in its cache. Longer sets are cut into rows."""

KEPT_PAIRS = 2**25
"""Up to this many similarities are kept, as they may be looked at again: 64 MiB of bfloat16, 128 of float32."""

FEW = 16
"""Up to one in so many pairs of a tile is computed pair by pair, more are computed as a matrix product."""


@dataclass(frozen=True, eq=False)
class Tile:
    """Some rows and columns of some sets. Vertices are numbered across all sets: token i of set b is b * n + i.

    Attributes:
        rows: vertex of each row (g, r).
        columns: vertex of each column (g, c).
        sets: which sets.
        row_range: which of the looked-at tokens are the rows.
        column_range: which tokens are the columns.
        size: n.
    """

    rows: Int64[Tensor, "g r"]
    columns: Int64[Tensor, "g c"]
    sets: slice
    row_range: slice
    column_range: slice
    size: int

    @property
    def is_last_of_rows(self) -> bool:
        """Tell whether the rows' last columns are in this tile."""
        return self.column_range.stop >= self.size

    @property
    def place(self) -> tuple[int, int, int]:
        """First set, row and column."""
        return self.sets.start, self.row_range.start, self.column_range.start


@dataclass(frozen=True, eq=False)
class Screened:
    """Similarities of a tile up to an error, in any of the floating formats.

    Attributes:
        values: (g, r, c); some are of no pair of the tile, see `TokenSets.only_pairs`.
        error: largest distance from the defined similarity.
    """

    values: Float[Tensor, "g r c"]
    error: float


@dataclass(frozen=True, eq=False)
class TokenSets:
    """B sets of n tokens whose similarity graphs are looked at together.

    Attributes:
        directions: the tokens (B, n, D).
        sample: the tokens of each set whose edges are looked at (B, S), ascending; None for all.
        block_size: similarities held at a time; None for the device's default.
        window: number of the window that each token is in (B, n): tokens of different windows are as unlike as
            zero-norm ones. None for one window.
        keeps_products: whether the products of few tiles are kept, for those who look at them again.
    """

    directions: Directions
    sample: Int64[Tensor, "b s"] | None = None
    block_size: int | None = None
    window: Int64[Tensor, "b n"] | None = None
    keeps_products: bool = False

    @property
    def num_vertices(self) -> int:
        """Tokens in all sets."""
        return self.directions.is_zero.numel()

    @property
    def device(self) -> torch.device:
        """Where the tokens are."""
        return self.directions.device

    def tiles(self) -> Iterator[Tile]:
        """Yield tiles that hold every looked-at pair of two different tokens of a set exactly once.

        Whole sets as many as fit, or parts of one set. Without a sample the pairs are those whose column comes
        after the row. With one, rows are drawn tokens, and a pair of two drawn ones belongs to the earlier.
        """
        num_sets, size = self.directions.is_zero.shape
        num_rows = size if self.sample is None else self.sample.shape[1]
        block = self.block_size or default_block_size(self.device)
        whole = min(block, WHOLE_SETS if precision.on_cpu(self.device) else BLOCK_SIZE_GPU)
        sets_each = max(1, whole // (num_rows * size))
        rows_each = num_rows if num_rows * size <= whole else min(num_rows, max(1, math.isqrt(block) // 4))
        columns_each = max(rows_each, block // rows_each)
        vertex = torch.arange(self.num_vertices, device=self.device).view(num_sets, size)
        looked_at = vertex if self.sample is None else vertex.gather(1, self.sample)
        for first in range(0, num_sets, sets_each):
            sets = slice(first, first + sets_each)
            for top in range(0, num_rows, rows_each):
                rows = slice(top, top + rows_each)
                for left in range(top if self.sample is None else 0, size, columns_each):
                    columns = slice(left, left + columns_each)
                    yield Tile(looked_at[sets, rows], vertex[sets, columns], sets, rows, columns, size)

    def screened(self, tile: Tile) -> Iterator[Screened]:
        """Yield the tile's similarities with less and less error; not to be modified.

        A format that was too coarse for one tile is not tried again for others.
        """
        width = self.directions.coarse.shape[-1]
        first, kept = self._kept.get(tile.place, (self._first_format[0], None))
        for rank, (columns, error) in islice(enumerate(self.directions.formats), first, None):
            if kept is None or rank > first:
                rows = self._rows(rank, columns)[tile.sets, tile.row_range]
                multiply = precision.product_above if self._is_half(tile) else precision.product
                kept = self._with_unlike(multiply(rows, self._columns(columns, tile)), tile)
            if self.keeps_products and self.num_pairs <= KEPT_PAIRS:
                self._kept[tile.place] = rank, kept
            self._first_format[0] = rank
            yield Screened(kept, precision.product_error(columns.dtype, width, error, error))

    def exact(self, tile: Tile) -> Float32[Tensor, "g r c"]:
        """Return the tile's similarities; some are of no pair of the tile, see `only_pairs`."""
        unit = self.directions.unit
        rows = self._rows(-1, unit)[tile.sets, tile.row_range]
        values = similarity_of_all(rows, self._columns(unit, tile))
        return self._with_unlike(values, tile)

    def _columns(self, vectors: Tensor, tile: Tile) -> Tensor:
        return vectors[tile.sets, tile.column_range]

    def similarity(self, u: Int64[Tensor, " e"], v: Int64[Tensor, " e"]) -> Float32[Tensor, " e"]:
        """Return the similarity of some pairs of vertices."""
        values = similarity_of_pairs(*self._ends(u, v))
        return values.masked_fill_(self._is_unlike(u, v), NEVER) if self._has_unlike else values

    def exceeds(self, u: Int64[Tensor, " e"], v: Int64[Tensor, " e"], tau: float) -> Bool[Tensor, " e"]:
        """Tell which of some pairs of vertices have a similarity above `tau`, which is at least -1; u ascends."""
        is_above = exceeds(*self._ends(u, v), tau)
        return is_above & ~self._is_unlike(u, v) if self._has_unlike else is_above

    def _ends(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the unit vectors at the ends of some pairs, and the places of the ends among them."""
        is_end = torch.zeros(self.num_vertices, dtype=torch.bool, device=self.device)
        is_end[u] = is_end[v] = True
        unit, place = self.directions.units_at(is_end.nonzero()[:, 0]), is_end.cumsum(0) - 1
        return unit, place[u], unit, place[v]

    def part(self, sets: slice) -> TokenSets:
        """Return some of the sets."""
        sample = None if self.sample is None else self.sample[sets]
        window = None if self.window is None else self.window[sets]
        return replace(self, directions=self.directions[sets], sample=sample, window=window)

    @cached_property
    def _kept(self) -> dict[tuple[int, int, int], tuple[int, Tensor]]:
        """The finest products of tiles, and their formats, kept where they are few: to be looked at again."""
        return {}

    @cached_property
    def _first_format(self) -> list[int]:
        """The format in which tiles are multiplied first."""
        return [0]

    @property
    def num_pairs(self) -> int:
        """Similarities of all looked-at tokens with all tokens of their sets; each of most pairs counts twice."""
        num_sets, size = self.directions.is_zero.shape
        return num_sets * (size if self.sample is None else self.sample.shape[1]) * size

    def _rows(self, rank: int, vectors: Float[Tensor, "b n d"]) -> Float[Tensor, "b s d"]:
        """The looked-at tokens in one of the formats."""
        if self.sample is None:
            return vectors
        if rank not in self._sampled_rows:
            self._sampled_rows[rank] = vectors.take_along_dim(self.sample[..., None], dim=1)
        return self._sampled_rows[rank]

    @cached_property
    def _sampled_rows(self) -> dict[int, Tensor]:
        return {}

    @cached_property
    def _is_sampled(self) -> Bool[Tensor, "b n"]:
        assert self.sample is not None
        return torch.zeros_like(self.directions.is_zero).scatter_(1, self.sample, True)

    def at_least(self, bound: float, values: Tensor, tile: Tile) -> Tensor:
        """Return a mask (g, r, c) of 1 and 0 of the tile's pairs whose value reaches a bound."""
        return self.only_pairs(torch.ge(values, bound, out=torch.empty_like(values)), tile)

    def only_pairs(self, mask: Tensor, tile: Tile) -> Tensor:
        """Set a mask (g, r, c) to 0 where it stands for no pair of the tile; in place."""
        if self.sample is not None:
            is_new = ~self._is_sampled[tile.sets, tile.column_range][:, None]
            is_new = is_new | (tile.columns[:, None] > tile.rows[..., None])
            return mask.mul_(is_new & (tile.columns[:, None] != tile.rows[..., None]))
        return mask.triu_(1) if self._is_half(tile) else mask

    def _is_half(self, tile: Tile) -> bool:
        """Tell whether the pairs of a tile are those above its diagonal."""
        return self.sample is None and tile.row_range.start == tile.column_range.start

    @property
    def _has_unlike(self) -> bool:
        return self.directions.has_zero or self.window is not None

    def _is_unlike(self, u: Int64[Tensor, "*r"], v: Int64[Tensor, "*c"]) -> Bool[Tensor, "*pairs"]:
        """Tell of which pairs of vertices one has zero norm, or the two are in different windows."""
        is_zero = self.directions.is_zero.flatten()
        is_unlike = is_zero[u] | is_zero[v]
        if self.window is None:
            return is_unlike
        window = self.window.flatten()
        return is_unlike | (window[u] != window[v])

    def _with_unlike(self, values: Tensor, tile: Tile) -> Tensor:
        """Give pairs of a zero-norm token, or of different windows, their similarity; in place."""
        if not self._has_unlike:
            return values
        return values.masked_fill_(self._is_unlike(tile.rows[..., None], tile.columns[:, None]), NEVER)


def default_block_size(device: torch.device) -> int:
    """Return the number of similarities held at a time where none is given."""
    return BLOCK_SIZE if precision.on_cpu(device) else BLOCK_SIZE_GPU
