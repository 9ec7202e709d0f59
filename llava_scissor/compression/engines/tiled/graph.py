"""Similarity graphs, a tile of pairs at a time."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from llava_scissor.compression.engines.base import Components
from llava_scissor.compression.engines.tiled import screening
from llava_scissor.compression.engines.tiled.edges import Pairs, join_strongest, spanning_forest
from llava_scissor.compression.engines.tiled.labels import label_edges, num_labels, order_components
from llava_scissor.compression.engines.tiled.tiles import Tile, TokenSets, find_nonzero
from llava_scissor.compression.merging import count_labels

EVERYTHING = -2.0
"""A threshold below every similarity."""


class SimilarityGraph:
    """The graphs with an edge wherever similarity > tau: labels of their components, and degrees.

    Most pairs are settled by a product with a bounded error. A pair that is open matters only if it could join two
    components or decide which of a component's vertices has the highest degree; only then is it computed.

    Attributes:
        labels: a number for each vertex that is equal inside its component, below V (V,).
        count: number of components.
    """

    def __init__(
        self,
        sets: TokenSets,
        tau: float,
        floor: float | None = None,
        labels: Int64[Tensor, " v"] | None = None,
    ) -> None:
        """Find the components.

        Args:
            sets: the tokens, B sets of n.
            tau: threshold; from 1 on every token stays alone.
            floor: a lower threshold, above which pairs are kept for `join_below`; None: none is kept.
            labels: components that are connected already; None: every vertex is alone.

        Cost: half the products of the looked-at rows with all tokens; memory for one block of them.
        """
        self.sets, self.tau, self.floor = sets, tau, floor
        self.labels = torch.arange(sets.num_vertices, device=sets.device) if labels is None else labels
        self._degree = torch.zeros_like(self.labels)  # along edges that are settled
        self._edges: list[Pairs] = []  # that are neither in labels nor in degrees yet
        self._open: list[Pairs] = []
        self._below: list[Pairs] = []  # that are above the floor and not known to be edges
        if tau < 1 or floor is not None:
            for tile in sets.tiles():
                self._look_at(tile)
            self._decide_between_components()
        self.count = num_labels(self.labels)

    def components(self, labels: Int64[Tensor, " v"] | None = None) -> Components:
        """Number the components, or a coarser partition, by the index of the vertex of highest degree."""
        labels = self.labels if labels is None else labels
        self._decide_between_leaders(labels)
        return order_components(labels, self._degree)

    def join_below(self, num_merges: int) -> tuple[Int64[Tensor, " v"], int, float | None]:
        """Join components along the strongest edges above the floor; see `join_strongest`."""
        assert self.floor is not None
        pairs = Pairs.joined(self._below, self.labels)
        return join_strongest(self.sets, pairs, self.labels, self.floor, num_merges)

    def _look_at(self, tile: Tile) -> None:
        """Settle the pairs of a tile, as a list if they are few, else as masks."""
        sets = self.sets
        lowest = self.tau if self.floor is None else self.floor
        for values, error in sets.screened(tile):
            low, high = screening.bracket(self.tau, error, values.dtype)
            least, _ = screening.bracket(lowest, error, values.dtype)
            few = values.numel() // sets.tuning.few
            index = find_nonzero(sets.at_least(least, values, tile), few)
            if index is not None:
                self._list(Pairs.of_tile(tile, index, values, error), low, high)
                break
            edges = sets.only_pairs(torch.gt(values, high, out=torch.empty_like(values)), tile)
            index = find_nonzero(sets.at_least(low, values, tile).sub_(edges), few)
            if index is not None:
                self._open.append(Pairs.of_tile(tile, index, values, error))
                self._unite(tile, edges)
                self._list_below(tile, values, error)
                break
        else:
            values = sets.exact(tile)
            edges = sets.only_pairs((values > screening.round_down(self.tau, values.dtype)).float(), tile)
            self._unite(tile, edges)
            self._list_below(tile, values, 0.0)
        self._stay_few()

    def _list(self, pairs: Pairs, low: float, high: float) -> None:
        is_edge = pairs.rough > high
        self._edges.append(pairs.where(is_edge))
        self._open.append(pairs.where((pairs.rough >= low) & ~is_edge))
        if self.floor is not None:
            self._below.append(pairs.where(~is_edge))

    def _list_below(self, tile: Tile, values: Tensor, error: float) -> None:
        """List the pairs above the floor that join two components, many of them with exact similarities."""
        if self.floor is None:
            return
        least, _ = screening.bracket(self.floor, error, values.dtype)
        below = self.sets.at_least(least, values, tile)
        below.mul_(self.labels[tile.rows][..., None] != self.labels[tile.columns][:, None])
        limit = self.sets.tuning.many_pairs // 16 if error else values.numel()
        index = find_nonzero(below, limit)
        if index is not None:
            self._below.append(Pairs.of_tile(tile, index, values, error))
        else:
            self._list_below(tile, self.sets.exact(tile), 0.0)

    def _unite(self, tile: Tile, edges: Tensor) -> None:
        """Count and join the edges of a tile, given as a mask, which is overwritten.

        Few edges are listed. If there are many, the first edge of each row is joined, again and again until those
        between different components are few.
        """
        for ends, dim in ((tile.rows, -1), (tile.columns, -2)):
            number = edges.sum(dim, dtype=torch.float32).flatten().long()
            self._degree.index_add_(0, ends.flatten(), number)
        while True:
            index = find_nonzero(edges, edges.numel() // self.sets.tuning.few)
            if index is not None:
                pairs = Pairs.of_tile(tile, index, edges, 0.0)
                self._join(pairs.u, pairs.v)
                return
            has_neighbour, first = edges.max(dim=-1)
            picked = has_neighbour > 0
            self._join(tile.rows[picked], tile.columns.gather(1, first)[picked])
            edges.mul_(self.labels[tile.rows][..., None] != self.labels[tile.columns][:, None])

    def _join(self, u: Tensor, v: Tensor) -> None:
        self.labels = label_edges(self.labels.numel(), self.labels[u], self.labels[v])[self.labels]

    def _connect(self) -> None:
        """Join and count the listed edges."""
        pairs = self._take(self._edges)
        if not pairs:
            return
        self._degree += self._count_ends(pairs)
        self._join(pairs.u, pairs.v)

    def _settle(self, pairs: Pairs) -> None:
        """Compute some pairs, and join and count the edges among them."""
        if pairs:
            self._edges.append(self._edges_among(pairs))
        self._connect()

    def _stay_few(self) -> None:
        """Deal with listed pairs before they are too many to remember."""
        many = self.sets.tuning.many_pairs
        if sum(map(len, self._edges)) > many:
            self._connect()
        if sum(map(len, self._open)) > many:
            self._settle(self._take(self._open))
        if sum(map(len, self._below)) > many:
            self._connect()
            pairs = self._take(self._below).between(self.labels)
            if len(pairs) > many // 2:
                pairs = spanning_forest(pairs.computed(self.sets), self.labels)
            self._below.append(pairs)

    def _take(self, parts: list[Pairs]) -> Pairs:
        """Return all pairs of a list, which is left empty."""
        pairs = Pairs.joined(parts, self.labels)
        parts.clear()
        return pairs

    def _decide_between_components(self) -> None:
        """Settle the open pairs that could join two components."""
        pairs = self._take(self._open)
        if len(pairs) <= self.sets.tuning.few_pairs:
            self._settle(pairs)
            return
        self._connect()
        joins = self.labels[pairs.u] != self.labels[pairs.v]
        self._settle(pairs.where(joins))
        self._open.append(pairs.where(~joins))

    def _decide_between_leaders(self, labels: Tensor) -> None:
        """Count the open edges of vertices that could have their component's highest degree."""
        pairs = self._take(self._open)
        if not pairs:
            return
        most = self._degree + self._count_ends(pairs)
        highest = torch.zeros_like(most).scatter_reduce_(0, labels, self._degree, "amax")
        could_lead = most >= highest[labels]
        pairs = pairs.where(could_lead[pairs.u] | could_lead[pairs.v])
        self._degree += self._count_ends(self._edges_among(pairs))

    def _edges_among(self, pairs: Pairs) -> Pairs:
        pairs = pairs.computed(self.sets, is_rough=True)
        is_open = (pairs.rough.double() - self.tau).abs() <= pairs.error
        pairs.rough[is_open], _ = self.sets.similarity(pairs.u[is_open], pairs.v[is_open])
        return pairs.where(pairs.rough.double() > self.tau)

    def _count_ends(self, pairs: Pairs) -> Int64[Tensor, " v"]:
        return count_labels(torch.cat([pairs.u, pairs.v]), self._degree.numel())


def single_linkage(sets: TokenSets, count: int, low: float, high: float) -> tuple[Components, float]:
    """Join vertices along the strongest edges until `count` components are left; see `Engine.single_linkage`.

    Cost: the similarities once; again if the last join lies above `high`, and each time `low` has to be lowered.
    """
    graph = SimilarityGraph(sets, high, low)
    rest = graph if graph.count >= count else SimilarityGraph(sets, 1.0, high)
    labels, height, num_merges = rest.labels, high, rest.count - count
    while num_merges:
        labels, num_merges, last = rest.join_below(num_merges)
        height = height if last is None else last
        if num_merges:
            assert low > EVERYTHING
            low = min(2 * low - 1, 0.999) if low > 0 else EVERYTHING
            rest = SimilarityGraph(sets, 1.0, low, labels)
    return graph.components(labels), height
