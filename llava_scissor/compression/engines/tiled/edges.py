"""Pairs of vertices, and the edges of a maximum spanning forest among them.

Single-linkage theory: the components at any threshold are the trees left of a maximum spanning forest when its
edges of weight <= tau are cut. So from the components at one threshold, fewer are reached one by one along the
strongest edges below it, as by Kruskal's algorithm, whatever the distribution of the similarities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from scipy.sparse import coo_array, csgraph
from torch import Tensor

from llava_scissor.compression.engines.tiled.labels import label_edges, num_labels
from llava_scissor.compression.engines.tiled.tiles import Tile, TokenSets, masked

ENOUGH = 4
"""So many times as many of the strongest pairs as joins are wanted usually hold enough edges of a forest."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Some pairs of vertices.

    Attributes:
        u: one end of each pair.
        v: the other.
        rough: similarities up to an error.
        error: the largest distance from the defined similarity.
    """

    u: Int64[Tensor, " e"]
    v: Int64[Tensor, " e"]
    rough: Float32[Tensor, " e"]
    error: float = 0.0

    @classmethod
    def of_tile(cls, tile: Tile, index: Int64[Tensor, " e"], values: Tensor, error: float) -> Pairs:
        """Return the pairs at flat indices of a tile."""
        num_rows, num_columns = tile.rows.shape[1], tile.columns.shape[1]
        row = index // num_columns
        column = index - row * num_columns
        if len(tile.columns) > 1:
            column += row // num_rows * num_columns
        u, v = tile.rows.flatten()[row], tile.columns.flatten()[column]
        return cls(u, v, values.flatten()[index].float().clamp_(max=1), error)

    @classmethod
    def joined(cls, parts: list[Pairs], like: Int64[Tensor, " v"]) -> Pairs:
        """Return the pairs of several lists, on the device of a tensor."""
        if not parts:
            nothing = like.new_zeros(0)
            return cls(nothing, nothing, nothing.float())
        u, v, rough = (torch.cat([getattr(part, name) for part in parts]) for name in ("u", "v", "rough"))
        return cls(u, v, rough, max(part.error for part in parts))

    def __len__(self) -> int:
        """Number of pairs."""
        return self.u.numel()

    def where(self, mask: Bool[Tensor, " e"]) -> Pairs:
        """Return some of the pairs."""
        u, v, rough = masked(mask, self.u, self.v, self.rough)
        return Pairs(u, v, rough, self.error)

    def between(self, labels: Int64[Tensor, " v"]) -> Pairs:
        """Return the pairs with ends of different labels."""
        return self.where(labels[self.u] != labels[self.v])

    def computed(self, sets: TokenSets, is_rough: bool = False) -> Pairs:
        """Return the pairs with their similarities, with a small error if they may be rough."""
        return Pairs(self.u, self.v, *sets.similarity(self.u, self.v, is_rough))


def join_strongest(
    sets: TokenSets, pairs: Pairs, labels: Int64[Tensor, " v"], floor: float, num_merges: int
) -> tuple[Int64[Tensor, " v"], int, float | None]:
    """Join components along the strongest edges between them (ties: lower, then higher vertex first).

    Rough similarities decide most pairs: those surely above the last edge taken are joined, those surely below are
    not. Only the others are computed, with a small error first, then exactly.

    Args:
        sets: the tokens.
        pairs: all pairs above `floor` that could join two components, and any others.
        labels: a number for each vertex that is equal inside its component, below V.
        floor: only edges above it are taken.
        num_merges: how many components to join.

    Returns:
        The labels; how many merges are left, where there are too few edges; the weight of the last edge taken,
        None if merges are left.
    """
    pairs = pairs.between(labels)
    for is_rough in (True, False):
        if pairs.error and len(pairs) > sets.tuning.few_pairs:
            last = _last_taken(pairs, labels, floor, num_merges)
            is_sure = pairs.rough > last + 2 * pairs.error
            labels, num_joined = _joined(labels, pairs.u[is_sure], pairs.v[is_sure])
            num_merges -= num_joined
            pairs = pairs.where(~is_sure & (pairs.rough >= last - 2 * pairs.error)).between(labels)
            pairs = pairs.computed(sets, is_rough)
    if pairs.error:
        pairs = pairs.computed(sets)
    forest = spanning_forest(pairs.where(pairs.rough.double() > floor), labels)
    labels, num_joined = _joined(labels, forest.u[:num_merges], forest.v[:num_merges])
    is_complete = num_joined == num_merges
    return labels, num_merges - num_joined, float(forest.rough[num_merges - 1]) if is_complete else None


def spanning_forest(pairs: Pairs, labels: Int64[Tensor, " v"]) -> Pairs:
    """Return the edges of a maximum spanning forest between components, strongest first, from exact pairs."""
    low, high = torch.minimum(pairs.u, pairs.v), torch.maximum(pairs.u, pairs.v)
    order = (low * labels.numel() + high).argsort()
    order = order[pairs.rough[order].argsort(descending=True, stable=True)]
    taken = order[_spanning(labels[low[order]], labels[high[order]], labels.numel())]
    return Pairs(low[taken], high[taken], pairs.rough[taken])


def _joined(labels: Tensor, u: Tensor, v: Tensor) -> tuple[Int64[Tensor, " v"], int]:
    """Join the components at the ends of some edges; also return how many joins that took."""
    joined = label_edges(labels.numel(), labels[u], labels[v])[labels]
    return joined, num_labels(labels) - num_labels(joined)


def _last_taken(pairs: Pairs, labels: Tensor, floor: float, num_merges: int) -> float:
    """Return the rough similarity of the last pair that Kruskal's algorithm takes; `floor` if it needs more."""
    num_tried = ENOUGH * num_merges
    while True:
        rough, index = pairs.rough.topk(min(num_tried, len(pairs)))
        forest = _spanning(labels[pairs.u[index]], labels[pairs.v[index]], labels.numel())
        if len(forest) >= num_merges:
            return float(rough[forest[num_merges - 1]])
        if num_tried >= len(pairs):
            return floor
        num_tried *= ENOUGH


def _spanning(u: Tensor, v: Tensor, num_vertices: int) -> Int64[Tensor, " e"]:
    """Return which edges Kruskal's algorithm takes, given in order; ascending."""
    # Edges between the same two components: the first counts.
    key = torch.minimum(u, v) * num_vertices + torch.maximum(u, v)
    distinct, inverse = key.unique(return_inverse=True)
    place = torch.arange(len(key), device=key.device)
    first = torch.full_like(distinct, len(key)).scatter_reduce_(0, inverse, place, "amin").cpu().numpy()
    ends = distinct.cpu().numpy()
    ranked = coo_array((first + 1.0, (ends // num_vertices, ends % num_vertices)), shape=(num_vertices,) * 2)
    tree = csgraph.minimum_spanning_tree(ranked.tocsr())
    return torch.from_numpy(np.sort(tree.data).astype(np.int64) - 1).to(key.device)
