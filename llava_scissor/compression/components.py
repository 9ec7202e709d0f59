"""Connected components of similarity graphs, and their order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64
from scipy.sparse import coo_array, csgraph
from torch import Tensor

from llava_scissor.compression.similarity import SimilarityBlock, TokenSets


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

    Cost: the similarities; memory for one block of them.

    Reference: LLaVA-Scissor (arXiv 2506.21862), section 3.1.
    """
    labels = torch.arange(sets.num_vertices, device=sets.directions.unit.device)
    degree = torch.zeros_like(labels)
    is_sampled = sets.is_sampled()
    for block in sets.blocks():
        linked = _links(block, tau)
        _add_degrees(degree, linked, block, is_sampled)
        labels = _join(labels, linked, block)
    return order_components(labels, degree)


def count_neighbours(sets: TokenSets, tau: float) -> Int64[Tensor, " v"]:
    """Return the number of neighbours of each vertex in the same graphs (V,)."""
    degree = torch.zeros(sets.num_vertices, dtype=torch.int64, device=sets.directions.unit.device)
    is_sampled = sets.is_sampled()
    for block in sets.repeated_blocks:
        _add_degrees(degree, _links(block, tau), block, is_sampled)
    return degree


def order_components(labels: Int64[Tensor, " v"], degree: Int64[Tensor, " v"]) -> Components:
    """Number components by the index of their highest-degree vertex (ties: lowest index).

    Args:
        labels: any numbers in 0..V-1 that are equal inside a component.
        degree: number of neighbours of each vertex.

    Returns:
        The same partition with labels 0..count-1.
    """
    index = torch.arange(labels.numel(), device=labels.device)
    highest = torch.full_like(labels, -1).scatter_reduce(0, labels, degree, "amax")
    is_leader = degree == highest[labels]
    leader = torch.full_like(labels, labels.numel()).scatter_reduce(
        0, labels, index.where(is_leader, labels.numel()), "amin"
    )
    leaders, ordered = leader[labels].unique(return_inverse=True)
    return Components(ordered, leaders.numel())


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
    engine = engine or ("scipy" if u.device.type == "cpu" else "torch")
    return (_label_with_scipy if engine == "scipy" else _label_with_torch)(num_vertices, u, v)


def follow(parent: Int64[Tensor, " v"]) -> Int64[Tensor, " v"]:
    """Label the trees of a graph in which every vertex points to one other, or to itself.

    Such a component has exactly one cycle (a self-loop counts); its label is the lowest vertex on it.
    """
    lowest = torch.arange(parent.numel(), device=parent.device)
    # After k doublings `parent` is the 2^k-th successor and `lowest` the minimum over the path to it.
    for _ in range(max(1, math.ceil(math.log2(parent.numel() + 1)))):
        lowest = torch.minimum(lowest, lowest[parent])
        parent = parent[parent]
    return lowest[parent]


def _label_with_scipy(num_vertices: int, u: Tensor, v: Tensor) -> Tensor:
    edges = (np.ones(u.numel(), np.bool_), (u.numpy(), v.numpy()))
    graph = coo_array(edges, shape=(num_vertices, num_vertices))
    return torch.from_numpy(csgraph.connected_components(graph, directed=False)[1]).long()


def _label_with_torch(num_vertices: int, u: Tensor, v: Tensor) -> Tensor:
    """Let every component hook onto its lowest neighbour until no edge joins two of them.

    Of two neighbouring components the higher one hooks, so each round at least halves their number.
    """
    labels = torch.arange(num_vertices, device=u.device)
    while u.numel():
        parent = torch.arange(num_vertices, device=u.device)
        parent = parent.scatter_reduce(0, u, v, "amin").scatter_reduce(0, v, u, "amin")
        root = follow(parent)
        labels = root[labels]
        u, v = root[u], root[v]
        is_open = u != v
        u, v = u[is_open], v[is_open]
    return labels


def _links(block: SimilarityBlock, tau: float) -> Bool[Tensor, "g r n"]:
    """Tell which rows and columns are neighbours; a token is not its own."""
    linked = block.values > tau
    return linked.scatter_(2, (block.rows - block.columns[:, :1])[..., None], False)


def _join(labels: Tensor, linked: Tensor, block: SimilarityBlock) -> Tensor:
    """Unite the components that a block's edges connect.

    A first round takes one edge of each row; what it leaves between different components is usually little.
    """
    has_neighbour, first = linked.view(torch.uint8).max(dim=-1)
    picked = has_neighbour.bool()
    u, v = block.rows[picked], block.columns.gather(1, first)[picked]
    labels = label_edges(labels.numel(), labels[u], labels[v])[labels]
    linked &= labels[block.rows][..., None] != labels[block.columns][:, None]
    sets, rows, columns = linked.nonzero(as_tuple=True)
    u, v = block.rows[sets, rows], block.columns[sets, columns]
    return label_edges(labels.numel(), labels[u], labels[v])[labels]


def _add_degrees(degree: Tensor, linked: Tensor, block: SimilarityBlock, is_sampled: Tensor | None) -> None:
    """Count the neighbours of the rows and, of tokens that have no row, those among the rows."""
    degree.index_add_(0, block.rows.flatten(), linked.sum(-1).flatten())
    if is_sampled is not None:
        counts = linked.sum(-2).masked_fill_(is_sampled[block.columns], 0)
        degree.index_add_(0, block.columns.flatten(), counts.flatten())
