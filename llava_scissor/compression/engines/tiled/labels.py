"""Labels of connected components: from edges, and in order."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64
from scipy.sparse import coo_array, csgraph
from torch import Tensor

from llava_scissor.compression.engines.base import Components
from llava_scissor.compression.merging import count_labels


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


def num_labels(labels: Int64[Tensor, " v"]) -> int:
    """Return how many different labels there are; they are below V."""
    return int(count_labels(labels, labels.numel()).count_nonzero())


def label_edges(num_vertices: int, u: Int64[Tensor, " e"], v: Int64[Tensor, " e"]) -> Int64[Tensor, " v"]:
    """Label the components of a graph given as edges, with SciPy on a CPU.

    Args:
        num_vertices: V.
        u: one end of each edge.
        v: the other end.

    Returns:
        For each vertex a number that is equal inside its component, below V.
    """
    ends = (u.int().cpu().numpy(), v.int().cpu().numpy())
    graph = coo_array((np.ones(u.numel(), dtype=bool), ends), shape=(num_vertices, num_vertices))
    return torch.from_numpy(csgraph.connected_components(graph, directed=False)[1]).long().to(u.device)
