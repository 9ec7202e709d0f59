"""The maximum spanning forest of similarity graphs: the components at every threshold at once.

Single-linkage theory: the components at any tau are the trees left when the forest's edges of weight <= tau are
cut. So an exact number of components is reached by keeping the strongest edges of the forest, whatever the
distribution of the similarities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from llava_scissor.compression.components import follow, label_edges
from llava_scissor.compression.similarity import SimilarityBlock, TokenSets


@dataclass(frozen=True, eq=False)
class Forest:
    """A maximum spanning tree of each set, strongest edges first (ties: lowest vertices first).

    Attributes:
        u: one end of each edge (E,).
        v: the other end (E,).
        weight: similarity of the two, never increasing (E,).
        num_vertices: vertices of all sets; E = num_vertices - number of sets.
    """

    u: Int64[Tensor, " e"]
    v: Int64[Tensor, " e"]
    weight: Float32[Tensor, " e"]
    num_vertices: int

    def cut(self, num_components: int) -> Int64[Tensor, " v"]:
        """Keep the strongest edges until exactly `num_components` trees remain.

        Args:
            num_components: from the number of sets to `num_vertices`.

        Returns:
            A number for each vertex that is equal inside its tree.
        """
        kept = self.num_vertices - num_components
        return label_edges(self.num_vertices, self.u[:kept], self.v[:kept])

    def num_components(self, tau: float) -> int:
        """Return how many trees remain if edges of weight <= tau are cut."""
        return self.num_vertices - int((self.weight > tau).sum())

    def threshold(self, num_components: int, near: float) -> float:
        """Return a threshold that the cut to `num_components` amounts to.

        Every threshold from the strongest edge that is dropped up to the weakest that is kept does. This is
        `near` if it lies between them, else the lower one, or just below the upper one where none is dropped.
        """
        kept = self.num_vertices - num_components
        dropped = float(self.weight[kept]) if kept < self.weight.numel() else -math.inf
        weakest = float(self.weight[kept - 1]) if kept else math.inf
        if dropped <= near < weakest:
            return near
        return weakest - 1e-6 if dropped == -math.inf else dropped


def maximum_spanning_forest(sets: TokenSets) -> Forest:
    """Find a maximum spanning tree of each set's similarity graph (Boruvka's algorithm).

    In every round each tree takes its strongest edge to another tree, all sets at once; the number of trees at
    least halves. Equal weights are ordered by the edge's lower, then higher vertex. Where the sets are sampled,
    only edges with a sampled end exist; they still connect everything.

    Args:
        sets: the tokens, B sets of n.

    Returns:
        B * (n - 1) edges.

    Cost: at most log2(n) passes over the similarities.
    """
    labels = torch.arange(sets.num_vertices, device=sets.directions.unit.device)
    strongest = _Strongest(sets.num_vertices, labels.device)
    edges: list[tuple[Tensor, Tensor]] = []
    while True:
        is_stale = strongest.forget(labels, everything=sets.sample is not None)
        for block in sets.repeated_blocks:
            _look(strongest, block, labels, is_stale)
            if sets.sample is not None:
                _look(strongest, _transposed(block), labels, is_stale)
        key, weight = _strongest_edge_of_each_tree(labels, strongest)
        root, is_taken = _hook(labels, key)
        if not bool(is_taken.any()):
            return _sorted_forest(edges, labels)
        edges.append((key[is_taken], weight[is_taken]))
        labels = root[labels]


class _Strongest:
    """For each vertex its strongest edge to another tree: weight and neighbour, or -inf and -1 if none is known.

    While the neighbour's tree stays another one, the edge remains the strongest; only then is it looked for again.
    """

    def __init__(self, num_vertices: int, device: torch.device):
        self.weight = torch.full((num_vertices,), -torch.inf, device=device)
        self.neighbour = torch.full((num_vertices,), -1, device=device)

    def forget(self, labels: Tensor, everything: bool) -> Tensor:
        """Drop the edges that lead into the vertex's own tree, or all; return which vertices have none now."""
        is_stale = (self.neighbour < 0) | (labels[self.neighbour] == labels) | everything
        self.weight.masked_fill_(is_stale, -torch.inf)
        self.neighbour.masked_fill_(is_stale, -1)
        return is_stale


def _look(strongest: _Strongest, block: SimilarityBlock, labels: Tensor, is_stale: Tensor) -> None:
    """Find the strongest edges of the stale rows of a block; of equal ones that to the lowest vertex wins."""
    sets, row = is_stale[block.rows].nonzero(as_tuple=True)
    vertices = block.rows[sets, row]
    trees = labels[block.columns]  # (g, n)
    trees = trees if len(trees) == 1 else trees[sets]  # (1 or rows, n)
    values = block.values.flatten(0, 1).index_select(0, sets * block.values.shape[1] + row)  # (rows, n)
    best, column = values.masked_fill_(trees == labels[vertices][:, None], -torch.inf).max(dim=-1)
    neighbour = block.columns[sets, column]
    old, old_neighbour = strongest.weight[vertices], strongest.neighbour[vertices]
    is_better = (best > old) | ((best == old) & (best > -torch.inf) & (neighbour < old_neighbour))
    strongest.weight[vertices] = best.where(is_better, old)
    strongest.neighbour[vertices] = neighbour.where(is_better, old_neighbour)


def _transposed(block: SimilarityBlock) -> SimilarityBlock:
    return SimilarityBlock(block.values.transpose(1, 2), block.columns, block.rows)


def _strongest_edge_of_each_tree(labels: Tensor, strongest: _Strongest) -> tuple[Tensor, Tensor]:
    """Return for each tree its strongest outgoing edge as lower * V + higher vertex, and that edge's weight.

    Both are indexed by the tree's label; trees without such an edge, and unused labels, have V * V.
    """
    size = labels.numel()
    weight, partner = strongest.weight, strongest.neighbour
    vertex = torch.arange(size, device=labels.device)
    strength = torch.full_like(weight, -torch.inf).scatter_reduce(0, labels, weight, "amax")
    is_candidate = (partner >= 0) & (weight == strength[labels])
    edge = torch.minimum(vertex, partner) * size + torch.maximum(vertex, partner)
    none = size * size
    key = torch.full_like(labels, none).scatter_reduce(0, labels, edge.where(is_candidate, none), "amin")
    return key, strength


def _hook(labels: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Unite each tree with the one its edge leads to.

    Returns:
        The new label of each old one, and which trees' edges were used. Two trees that choose each other form a
        cycle; the edge of its lowest tree is left out, and so any cycle that rounding could produce is broken.
    """
    size = labels.numel()
    tree = torch.arange(size, device=labels.device)
    has_edge = key < size * size
    low, high = labels[(key // size).where(has_edge, 0)], labels[(key % size).where(has_edge, 0)]
    parent = torch.where(low == tree, high, low).where(has_edge, tree)
    root = follow(parent)
    return root, has_edge & (root != tree)


def _sorted_forest(edges: list[tuple[Tensor, Tensor]], labels: Tensor) -> Forest:
    size = labels.numel()
    if not edges:
        nothing = labels.new_zeros(0)
        return Forest(nothing, nothing, torch.zeros(0, device=labels.device), size)
    key, weight = (torch.cat(part) for part in zip(*edges, strict=True))
    by_key = key.argsort()
    order = by_key[weight[by_key].argsort(descending=True, stable=True)]
    key = key[order]
    return Forest(key // size, key % size, weight[order], size)
