"""Merging components along the strongest links between them, to an exact number.

Single-linkage theory: the components at any threshold are the trees left of a maximum spanning forest when its
edges of weight <= tau are cut. So from the components at one threshold, fewer are reached one by one along the
strongest edges below it, as by Kruskal's algorithm, whatever the distribution of the similarities.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, Int64
from scipy.sparse import coo_array, csgraph
from torch import Tensor

from llava_scissor.compression import precision
from llava_scissor.compression.components import label_edges
from llava_scissor.compression.indexing import find_nonzero, masked
from llava_scissor.compression.links import Links, pairs_at
from llava_scissor.compression.token_sets import FEW, Tile, TokenSets

EVERYTHING = -2.0
"""A threshold below every similarity."""


def merge_strongest(
    sets: TokenSets,
    labels: Int64[Tensor, " v"],
    num_merges: int,
    tau: float,
    depth: float,
    links: Links | None = None,
) -> Int64[Tensor, " v"]:
    """Merge components of the graph at `tau` along the strongest edges between them.

    Equal weights are ordered by the edge's lower, then higher vertex. Where the sets are sampled, only edges with
    a sampled end exist; they still connect everything.

    Args:
        sets: the tokens, B sets of n.
        labels: a number for each vertex that is equal inside its component, below V.
        num_merges: how many merges; at most the number of components less the number of sets.
        tau: threshold that led to the components; no edge above it is left between two of them.
        depth: how far below `tau` the edges are expected. A bad guess costs time only.
        links: pairs of `sets` above a lower threshold, where they are known.

    Returns:
        Labels of the merged components.

    Cost: the similarities once, or a few times if the edges are found much further below.
    """
    while num_merges:
        low = tau - depth if tau - depth > -1 else EVERYTHING
        if links is None:
            forest = _forest_above(sets, labels, low, num_merges)
            depth *= 8
        else:
            low = max(low, links.low)
            forest = _Edges.above(sets, *links.between(labels, low), low).with_others([], labels)
            links = links if low > links.low else None  # all of them are used up
            depth *= 2
        taken = forest.u[:num_merges], forest.v[:num_merges]
        labels = label_edges(labels.numel(), labels[taken[0]], labels[taken[1]])[labels]
        num_merges -= len(taken[0])
        assert low > EVERYTHING or not num_merges
    return labels


class _Edges:
    """Edges of a forest between components, strongest first (ties: lowest vertices first)."""

    def __init__(self, weight: Float32[Tensor, " e"], u: Int64[Tensor, " e"], v: Int64[Tensor, " e"]):
        self.weight, self.u, self.v = weight, u, v

    @classmethod
    def above(cls, sets: TokenSets, u: Tensor, v: Tensor, low: float) -> _Edges:
        """Return those of some pairs that have a similarity above `low`."""
        order = u.argsort()
        u, v = u[order], v[order]
        is_edge = sets.exceeds(u, v, low)
        u, v = masked(is_edge, u, v)
        return cls(sets.similarity(u, v), u, v)

    def with_others(self, others: list[_Edges], labels: Int64[Tensor, " v"]) -> _Edges:
        """Return a maximum spanning forest of these and other edges."""
        weight, u, v = (
            torch.cat(part) for part in zip(*(e._columns() for e in [self, *others]), strict=True)
        )
        low, high = torch.minimum(u, v), torch.maximum(u, v)
        order = (low * labels.numel() + high).argsort()
        order = order[weight[order].argsort(descending=True, stable=True)]
        kept = order[_spanning(labels[low[order]], labels[high[order]], labels.numel())]
        return _Edges(weight[kept], low[kept], high[kept])

    def _columns(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weight, self.u, self.v


def _forest_above(sets: TokenSets, labels: Tensor, low: float, num_wanted: int) -> _Edges:
    """Find a maximum spanning forest of the edges between components with a similarity above `low`."""
    nothing = labels.new_zeros(0)
    forest = _Edges(torch.zeros(0, device=labels.device), nothing, nothing)
    waiting: list[_Edges] = []
    for tile in sets.tiles():
        waiting.append(_edges_above(sets, tile, labels, low))
        if sum(len(edges.u) for edges in waiting) > labels.numel():
            forest, waiting = forest.with_others(waiting, labels), []
            is_done = len(forest.u) >= num_wanted and float(forest.weight[num_wanted - 1]) == 1
            if is_done and tile.is_last_of_rows and sets.sample is None:
                return forest  # no edge is stronger, and those of later rows come after equal ones
    return forest.with_others(waiting, labels)


def _edges_above(sets: TokenSets, tile: Tile, labels: Tensor, low: float) -> _Edges:
    """List the edges of a tile between different components with a similarity above `low`."""
    differs = labels[tile.rows][..., None] != labels[tile.columns][:, None]
    for screened in sets.screened(tile):
        values = screened.values
        least, _ = precision.bracket(low, screened.error, values.dtype)
        is_open = sets.at_least(least, values, tile).mul_(differs)
        places = find_nonzero(is_open, values.numel() // FEW)
        if places is not None:
            return _Edges.above(sets, *pairs_at(tile, places), low)
    values = sets.exact(tile)
    is_edge = sets.only_pairs((values > precision.round_down(low, values.dtype)).float(), tile).mul_(differs)
    places = is_edge.flatten().nonzero()[:, 0]
    return _Edges(values.flatten()[places], *pairs_at(tile, places))


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
