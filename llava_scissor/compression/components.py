"""Connected components of similarity graphs, and their order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64
from scipy.sparse import csgraph, csr_array
from torch import Tensor

from llava_scissor.compression import precision
from llava_scissor.compression.indexing import count_labels, find_nonzero, masked
from llava_scissor.compression.links import Links, Pairs, pairs_at
from llava_scissor.compression.token_sets import FEW, Tile, TokenSets

MANY_PAIRS = 2**22
"""Edges or open pairs that are remembered; more are looked at as they come."""

FEW_OPEN = 2**9
"""Open pairs that are computed whether they matter or not: to find that out takes longer."""


@dataclass(frozen=True, eq=False)
class Components:
    """A partition of vertices.

    Attributes:
        labels: component of each vertex, 0..count-1 in order (V,).
        count: number of components.
    """

    labels: Int64[Tensor, " v"]
    count: int


def connected_components(sets: TokenSets, tau: float) -> Components:
    """Find the components of the graphs with an edge wherever similarity > tau.

    Only edges with a looked-at end count (all, unless the sets are sampled).

    Args:
        sets: the tokens, B sets of n.
        tau: threshold; above 1 every token stays alone, below -1 each set is one component.

    Returns:
        Components of all B * n vertices. They are sorted by the index of their vertex of highest degree
        (ties: lowest index), so those of one set are contiguous and sets keep their order.

    Cost: half the products of the looked-at rows with all tokens; memory for one block of them.

    Reference: LLaVA-Scissor (arXiv 2506.21862), section 3.1.
    """
    return SimilarityGraph(sets, tau).components()


class SimilarityGraph:
    """The graphs with an edge wherever similarity > tau: labels of their components, and degrees.

    Most pairs are settled by a product with a bounded error. A pair that is open matters only if it could join two
    components or decide which of a component's vertices has the highest degree; only then is it computed.

    Attributes:
        labels: a number for each vertex that is equal inside its component, below V (V,).
        count: number of components.
    """

    def __init__(self, sets: TokenSets, tau: float, links: Links | None = None):
        """Find the components; see `connected_components`.

        Args:
            sets: the tokens.
            tau: threshold.
            links: the pairs of `sets` above a threshold of at most `tau`, where they are known.
        """
        self.sets, self.tau = sets, tau
        self.labels = torch.arange(sets.num_vertices, device=sets.device)
        self._degree = torch.zeros_like(self.labels)  # along edges that are settled
        self._open: list[Pairs] = []
        self._edges: list[Pairs] = []  # that are neither in labels nor in degrees yet
        if tau < -1:
            self.labels = self.labels // sets.directions.is_zero.shape[1]
        elif tau < 1:
            if links is None:
                for tile in sets.tiles():
                    self._look_at(tile)
            else:
                edges, open_pairs = links.at(tau)
                self._edges.append(edges)
                self._open.append(open_pairs)
            self._decide_between_components()
        self.count = int(self._is_used().sum())

    def components(self, labels: Int64[Tensor, " v"] | None = None) -> Components:
        """Number the components, or a coarser partition, by the index of the vertex of highest degree."""
        self.labels = self.labels if labels is None else labels
        if self._open:
            self._decide_between_leaders()
        return order_components(self.labels, self._degree)

    def unordered(self) -> Components:
        """Number the components in any order, which takes less time."""
        return Components((self._is_used().cumsum(0) - 1)[self.labels], self.count)

    def _is_used(self) -> Bool[Tensor, " v"]:
        return torch.zeros_like(self.labels, dtype=torch.bool).index_fill_(0, self.labels, True)

    def _look_at(self, tile: Tile) -> None:
        edges, open_pairs = _decide(self.sets, tile, self.tau)
        if isinstance(edges, Tensor):
            self._degree.index_add_(0, tile.rows.flatten(), _count(edges, -1))
            self._degree.index_add_(0, tile.columns.flatten(), _count(edges, -2))
            self.labels = _join(self.labels, edges, tile)
        else:
            self._edges.append(edges)
        self._open.append(open_pairs)
        if _number(self._edges) > MANY_PAIRS:
            self._connect()
        if _number(self._open) > MANY_PAIRS:
            self._settle(*_taken(self._open))

    def _settle(self, u: Tensor, v: Tensor) -> None:
        """Compute some pairs and add the edges among them to those found."""
        order = u.argsort()
        u, v = u[order], v[order]
        is_edge = self.sets.exceeds(u, v, self.tau)
        self._edges.append(masked(is_edge, u, v))
        self._connect()

    def _connect(self) -> None:
        """Unite the components that listed edges connect, and count the edges."""
        if self._edges:
            u, v = _taken(self._edges)
            self._degree += count_labels(torch.cat([u, v]), self._degree.numel())
            self.labels = label_edges(self.labels.numel(), self.labels[u], self.labels[v])[self.labels]

    def _decide_between_components(self) -> None:
        if 0 < _number(self._open) <= FEW_OPEN:
            self._settle(*_taken(self._open))
            return
        self._connect()
        if self._open:
            u, v = _taken(self._open)
            matters = self.labels[u] != self.labels[v]
            self._settle(*masked(matters, u, v))
            self._open.append(masked(~matters, u, v))

    def _decide_between_leaders(self) -> None:
        """Settle the open pairs of vertices that could have their component's highest degree."""
        u, v = _taken(self._open)
        most = self._degree + count_labels(torch.cat([u, v]), self._degree.numel())
        highest = torch.zeros_like(most).scatter_reduce_(0, self.labels, self._degree, "amax")
        could_lead = most >= highest[self.labels]
        matters = could_lead[u] | could_lead[v]
        self._settle(*masked(matters, u, v))


def order_components(labels: Int64[Tensor, " v"], degree: Int64[Tensor, " v"]) -> Components:
    """Number components by the index of their highest-degree vertex (ties: lowest index).

    Args:
        labels: any numbers in 0..V-1 that are equal inside a component.
        degree: number of neighbours of each vertex.

    Returns:
        The same partition with labels 0..count-1.
    """
    size = labels.numel()
    index = torch.arange(size, device=labels.device)
    rank = degree * size + (size - 1 - index)  # highest degree, then lowest index
    highest = torch.zeros_like(rank).scatter_reduce_(0, labels, rank, "amax")
    leader = (size - 1 - highest % size)[labels]
    numbers = ((leader == index).cumsum(0) - 1)[leader]
    return Components(numbers, int(numbers.max()) + 1)


def label_edges(
    num_vertices: int, u: Int64[Tensor, " e"], v: Int64[Tensor, " e"], engine: str | None = None
) -> Int64[Tensor, " v"]:
    """Label the components of a graph given as edges.

    Args:
        num_vertices: V.
        u: one end of each edge.
        v: the other end.
        engine: "scipy" or "torch"; None takes SciPy for edges on a CPU and torch elsewhere.

    Returns:
        For each vertex a number that is equal inside its component, below V.
    """
    engine = engine or ("scipy" if precision.on_cpu(u.device) else "torch")
    return (_label_with_scipy if engine == "scipy" else _label_with_torch)(num_vertices, u, v)


def hook(lowest: Int64[Tensor, " v"]) -> Int64[Tensor, " v"]:
    """Unite each component with its lowest neighbour, so that at most half of those that have one remain.

    Args:
        lowest: that neighbour of each component, V where there is none.

    Returns:
        What each component is part of.
    """
    itself = torch.arange(len(lowest), device=lowest.device)
    parent = lowest.where(lowest < len(lowest), itself)
    # On a longer cycle than two, every second one would be lower than the one before.
    parent = itself.where((parent[parent] == itself) & (itself < parent), parent)
    for _ in range(len(lowest).bit_length()):
        parent = parent[parent]
    return parent


def _label_with_scipy(num_vertices: int, u: Tensor, v: Tensor) -> Tensor:
    if not bool((u != v).any()):
        return torch.arange(num_vertices)
    if bool((u[1:] < u[:-1]).any()):
        u, order = u.sort()
        v = v[order]
    start = torch.zeros(num_vertices + 1, dtype=torch.int32)
    start[1:] = torch.bincount(u, minlength=num_vertices).cumsum(0)
    rows = (np.ones(u.numel()), v.int().numpy(), start.numpy())  # as SciPy wants them: it need not copy
    graph = csr_array(rows, shape=(num_vertices, num_vertices))
    return torch.from_numpy(csgraph.connected_components(graph, directed=False)[1]).long()


def _label_with_torch(num_vertices: int, u: Tensor, v: Tensor) -> Tensor:
    """Let every component hook onto its lowest neighbour until no edge joins two of them."""
    labels = torch.arange(num_vertices, device=u.device)
    while bool((u != v).any()):
        ends, others = torch.cat([u, v]), torch.cat([v, u])
        other = others.where(ends != others, num_vertices)
        root = hook(torch.full_like(labels, num_vertices).scatter_reduce_(0, ends, other, "amin"))
        labels, u, v = root[labels], root[u], root[v]
    return labels


def _number(pairs: list[Pairs]) -> int:
    return sum(u.numel() for u, _ in pairs)


def _taken(pairs: list[Pairs]) -> Pairs:
    """Return all pairs of a list, which is left empty."""
    u, v = (torch.cat(part) for part in zip(*pairs, strict=True))
    pairs.clear()
    return u, v


def _decide(sets: TokenSets, tile: Tile, tau: float) -> tuple[Pairs | Tensor, Pairs]:
    """Tell which pairs of a tile are edges, listed if few or else as a mask of 1 and 0, and which are open."""
    for screened in sets.screened(tile):
        values = screened.values
        low, high = precision.bracket(tau, screened.error, values.dtype)
        not_below = sets.at_least(low, values, tile)
        places = find_nonzero(not_below, values.numel() // FEW)
        if places is not None:
            u, v = pairs_at(tile, places)
            is_edge = values.flatten()[places] > high
            return masked(is_edge, u, v), masked(~is_edge, u, v)
        linked = sets.only_pairs(torch.gt(values, high, out=torch.empty_like(values)), tile)
        places = find_nonzero(not_below.sub_(linked), values.numel() // FEW)
        if places is not None:
            return linked, pairs_at(tile, places)
    values = sets.exact(tile)
    linked = sets.only_pairs(values.gt_(precision.round_down(tau, values.dtype)), tile)
    nothing = tile.rows.new_zeros(0)
    return linked, (nothing, nothing)


def _join(labels: Tensor, linked: Tensor, tile: Tile) -> Tensor:
    """Unite the components that a tile's edges connect.

    Few edges are listed. Of many, each row takes its first; what that leaves between different components is
    usually little.
    """
    while True:
        places = find_nonzero(linked, linked.numel() // FEW)
        if places is not None:
            u, v = pairs_at(tile, places)
            return label_edges(labels.numel(), labels[u], labels[v])[labels]
        has_neighbour, first = linked.max(dim=-1)
        picked = has_neighbour > 0
        u, v = tile.rows[picked], tile.columns.gather(1, first)[picked]
        labels = label_edges(labels.numel(), labels[u], labels[v])[labels]
        linked = linked.mul_(labels[tile.rows][..., None] != labels[tile.columns][:, None])


def _count(mask: Tensor, dim: int) -> Int64[Tensor, " k"]:
    return mask.sum(dim, dtype=torch.float32).flatten().long()
