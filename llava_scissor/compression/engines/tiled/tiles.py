"""Many sets of tokens, and the pairs inside each set, a tile of pairs at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from llava_scissor.compression.engines.tiled import screening
from llava_scissor.compression.engines.tiled.similarity import (
    NEVER,
    Directions,
    similarity_of_all,
    similarity_of_pairs,
)
from llava_scissor.compression.engines.tiled.tuning import Tuning, tuning_for


@dataclass(frozen=True, eq=False)
class Tile:
    """Some rows and columns of some sets. Vertices are numbered across all sets: token i of set b is b * n + i.

    Attributes:
        rows: vertex of each row (g, r).
        columns: vertex of each column (g, c).
        sets: which sets.
        row_range: which of the looked-at tokens are the rows.
        column_range: which tokens are the columns.
    """

    rows: Int64[Tensor, "g r"]
    columns: Int64[Tensor, "g c"]
    sets: slice
    row_range: slice
    column_range: slice


@dataclass(frozen=True, eq=False)
class TokenSets:
    """B sets of n tokens whose similarity graphs are looked at together.

    Attributes:
        directions: the tokens (B, n, D).
        sample: the tokens of each set whose edges are looked at (B, S), ascending; None for all.
        block_size: similarities held at a time; None for the device's default.
        window: number of the window that each token is in (B, n). Tokens of different windows have similarity -1.
            None for one window.
    """

    directions: Directions
    sample: Int64[Tensor, "b s"] | None = None
    block_size: int | None = None
    window: Int64[Tensor, "b n"] | None = None

    @property
    def num_vertices(self) -> int:
        """Tokens in all sets."""
        return self.directions.is_zero.numel()

    @property
    def device(self) -> torch.device:
        """Where the tokens are."""
        return self.directions.coarse.device

    @property
    def tuning(self) -> Tuning:
        """How much is done at a time."""
        return tuning_for(self.device)

    @property
    def shift(self) -> int:
        """The sum of all tokens stays below float32's limit if they are multiplied by 2^-shift."""
        return self.directions.shift

    def tiles(self) -> Iterator[Tile]:
        """Yield tiles that hold every looked-at pair of two different tokens of a set exactly once.

        A tile holds as many whole sets as fit, or a part of one set. Without a sample, its pairs are those whose
        column comes after the row. With a sample, rows are drawn tokens, and a pair of two drawn ones belongs to
        the row of the earlier.
        """
        num_sets, size = self.directions.is_zero.shape
        num_rows = size if self.sample is None else self.sample.shape[1]
        block = self.block_size or self.tuning.block_size
        whole = min(block, self.tuning.whole_sets)
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
                    yield Tile(looked_at[sets, rows], vertex[sets, columns], sets, rows, columns)

    def screened(self, tile: Tile) -> Iterator[tuple[Tensor, float]]:
        """Yield the tile's similarities (g, r, c) with less and less error, and their largest error.

        Some entries belong to no pair of the tile: see `only_pairs`. A format that was too coarse for one tile is
        not tried again for others.
        """
        width = self.directions.coarse.shape[-1]
        for rank, (vectors, error) in islice(enumerate(self.directions.formats), self._first_format[0], None):
            self._first_format[0] = rank
            values = self._with_unlike(screening.product(*self._ends(vectors, tile)), tile)
            yield values, screening.product_error(vectors.dtype, width, error, error)

    def exact(self, tile: Tile) -> Float32[Tensor, "g r c"]:
        """Return the tile's similarities. Some entries belong to no pair of the tile: see `only_pairs`."""
        return self._with_unlike(similarity_of_all(*self._ends(self.directions.unit, tile)), tile)

    def _ends(self, vectors: Float[Tensor, "b n d"], tile: Tile) -> tuple[Tensor, Tensor]:
        """Return the rows and the columns of a tile."""
        columns = vectors[tile.sets, tile.column_range]
        if self.sample is None:
            return vectors[tile.sets, tile.row_range], columns
        return vectors.flatten(0, 1)[tile.rows], columns

    def similarity(
        self, u: Int64[Tensor, " e"], v: Int64[Tensor, " e"], is_rough: bool = False
    ) -> tuple[Float32[Tensor, " e"], float]:
        """Return the similarity of some pairs of vertices and its largest error, 0 unless it may be rough."""
        values, error = similarity_of_pairs(self.directions, u, self.directions, v, is_rough)
        return (values.masked_fill_(self._is_unlike(u, v), NEVER) if self._has_unlike else values), error

    @cached_property
    def _first_format(self) -> list[int]:
        """The format in which tiles are multiplied first."""
        return [0]

    @cached_property
    def _is_sampled(self) -> Bool[Tensor, "b n"]:
        assert self.sample is not None
        return torch.zeros_like(self.directions.is_zero).scatter_(1, self.sample, True)

    def at_least(self, bound: float, values: Tensor, tile: Tile) -> Tensor:
        """Return a mask (g, r, c) of 1 and 0 of the tile's pairs whose value reaches a bound."""
        return self.only_pairs(torch.ge(values, bound, out=torch.empty_like(values)), tile)

    def only_pairs(self, mask: Tensor, tile: Tile) -> Tensor:
        """Set the entries of a mask (g, r, c) that belong to no pair of the tile to 0, in place."""
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
        """Tell which pairs of vertices have no edge: one has zero norm, or they are in different windows."""
        is_zero = self.directions.is_zero.flatten()
        is_unlike = is_zero[u] | is_zero[v]
        if self.window is None:
            return is_unlike
        window = self.window.flatten()
        return is_unlike | (window[u] != window[v])

    def _with_unlike(self, values: Tensor, tile: Tile) -> Tensor:
        """Set the similarity of pairs that never have an edge to -1, in place."""
        if not self._has_unlike:
            return values
        return values.masked_fill_(self._is_unlike(tile.rows[..., None], tile.columns[:, None]), NEVER)


def find_nonzero(mask: Float[Tensor, "*shape"], limit: int) -> Int64[Tensor, " e"] | None:
    """Return the flat indices of a mask's nonzero elements, or None if there are more than `limit`."""
    flat, width = mask.flatten(), 8 // mask.element_size()
    if flat.numel() % width:
        index = flat.nonzero()[:, 0]
    else:  # several elements at a time: most are zero
        word = flat.view(torch.int64).nonzero()[:, 0]
        if word.numel() > limit:
            return None
        few, element = flat.view(-1, width)[word].nonzero(as_tuple=True)
        index = word[few] * width + element
    return index if index.numel() <= limit else None


def masked(mask: Bool[Tensor, " n"], *columns: Tensor) -> tuple[Tensor, ...]:
    """Return the elements of some tensors where a mask is true."""
    index = mask.nonzero()[:, 0]
    return tuple(column.index_select(0, index) for column in columns)
