"""The pairs of vertices that matter at many thresholds, listed once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from llava_scissor.compression import precision
from llava_scissor.compression.indexing import find_nonzero, masked
from llava_scissor.compression.token_sets import FEW, Tile, TokenSets

Pairs = tuple[Tensor, ...]
"""Some pairs of vertices (u, v)."""

MANY_LINKS = 2**24
"""Links that are listed at most, 20 bytes each."""

SMALL_SHARE = 1 / 16
"""The share of the pairs that tells roughly how many there will be."""


@dataclass(frozen=True, eq=False)
class Links:
    """All pairs of vertices with a similarity above `low`, and some others.

    Attributes:
        low: what is not listed is at most so similar.
        u: one end of each pair.
        v: the other.
        rough: similarities up to an error.
        error: the largest distance from the defined similarity.
    """

    low: float
    u: Int64[Tensor, " e"]
    v: Int64[Tensor, " e"]
    rough: Float32[Tensor, " e"]
    error: float

    @classmethod
    def above(cls, sets: TokenSets, low: float) -> Links | None:
        """List the looked-at pairs of some sets; None where they are too many, or look like it."""
        found: list[Links] = []
        num_found = num_seen = 0
        num_pairs = sets.num_pairs if sets.sample is not None else sets.num_pairs / 2
        for tile in sets.tiles():
            screened = next(sets.screened(tile))
            least, _ = precision.bracket(low, screened.error, screened.values.dtype)
            mask = sets.at_least(least, screened.values, tile)
            places = find_nonzero(mask, mask.numel() // FEW)
            if places is None:
                return None
            num_found += places.numel()
            num_seen += mask.numel()
            if num_found > MANY_LINKS * max(num_seen / num_pairs, SMALL_SHARE):
                return None
            rough = screened.values.flatten()[places].float()
            found.append(cls(low, *pairs_at(tile, places), rough, screened.error))
        return cls._joined(found)

    def at(self, tau: float) -> tuple[Pairs, Pairs]:
        """Return the pairs that are edges at a threshold of at least `low`, and those that are open."""
        low, high = precision.bracket(tau, self.error, torch.float32)
        is_edge = self.rough > high
        is_open = (self.rough >= low) & ~is_edge
        return masked(is_edge, self.u, self.v), masked(is_open, self.u, self.v)

    def between(self, labels: Int64[Tensor, " v"], tau: float) -> Pairs:
        """Return the pairs with different labels whose similarity may be above a threshold of at least `low`."""
        low, _ = precision.bracket(tau, self.error, torch.float32)
        matters = (self.rough >= low) & (labels[self.u] != labels[self.v])
        return masked(matters, self.u, self.v)

    def updated(
        self, sets: TokenSets, number: Int64[Tensor, " v"], is_new: Bool[Tensor, " w"]
    ) -> Links | None:
        """Carry the pairs over to a set of which some vertices are new, and list those of the new ones.

        Args:
            sets: one set, not sampled.
            number: of each vertex there; -1 for those that are gone.
            is_new: which of its vertices are new.
        """
        u, v = number[self.u], number[self.v]
        u, v, rough = masked((u >= 0) & (v >= 0), u, v, self.rough)
        kept = replace(self, u=u, v=v, rough=rough)
        if not bool(is_new.any()):
            return kept
        added = Links.above(replace(sets, sample=is_new.nonzero().mT), self.low)
        return added and self._joined([kept, added])

    @staticmethod
    def _joined(parts: list[Links]) -> Links:
        u, v, rough = (torch.cat([getattr(part, name) for part in parts]) for name in ("u", "v", "rough"))
        return Links(parts[0].low, u, v, rough, max(part.error for part in parts))


def pairs_at(tile: Tile, places: Int64[Tensor, " e"]) -> tuple[Int64[Tensor, " e"], Int64[Tensor, " e"]]:
    """Return the vertices of row and column at flat places of a tile."""
    num_rows, num_columns = tile.rows.shape[1], tile.columns.shape[1]
    row = places // num_columns
    column = places - row * num_columns
    if len(tile.columns) > 1:
        column += row // num_rows * num_columns
    return tile.rows.flatten()[row], tile.columns.flatten()[column]
