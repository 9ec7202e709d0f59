"""The two steps as one would first write them, for a bench to compare with.

None of these is used by the compressor. They leave out what a library needs besides: no exact budget, no
guard against tokens of zero norm, no sampling, no record of what went where.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from scipy.sparse import coo_array, csgraph
from torch import Tensor
from torch.nn import functional

Label = Callable[[Bool[Tensor, "n n"]], Int64[Tensor, " n"]]


def matrix_products(
    tokens: Float[Tensor, "f p d"], representatives: Float[Tensor, "s d"], kept: Float[Tensor, "k d"]
) -> None:
    """Multiply the three pairs of float32 matrices that the definition of the method has, and nothing else.

    Args:
        tokens: unit vectors of all tokens.
        representatives: those of the spatial step.
        kept: those of the temporal step.
    """
    torch.bmm(tokens, tokens.transpose(1, 2))
    torch.mm(representatives, representatives.T)
    torch.mm(tokens.flatten(0, 1), kept.T)


def compress_frame_by_frame(tokens: Float[Tensor, "f p d"], tau: float, label: Label) -> Float[Tensor, "k d"]:
    """Take the frames one after another, with a whole similarity matrix for each step.

    Args:
        tokens: any float dtype.
        tau: threshold.
        label: finds the components of a graph.

    Returns:
        The kept tokens.
    """
    wide = tokens.float()
    means = torch.cat([_means(frame, tau, label) for frame in wide])
    kept = _means(means, tau, label)
    flat = wide.flatten(0, 1)
    nearest = (_unit(flat) @ _unit(kept).T).argmax(1)
    total = kept.clone().index_add_(0, nearest, flat)
    return (total / (1 + torch.bincount(nearest, minlength=len(kept)))[:, None]).to(tokens.dtype)


def label_by_union_find(linked: Bool[Tensor, "n n"]) -> Int64[Tensor, " n"]:
    """Label components by a union-find over all edges, in Python."""
    parent = list(range(len(linked)))

    def find(vertex: int) -> int:
        while parent[vertex] != vertex:
            parent[vertex] = parent[parent[vertex]]
            vertex = parent[vertex]
        return vertex

    for one, other in linked.triu(1).nonzero().tolist():
        parent[find(one)] = find(other)
    return torch.tensor([find(vertex) for vertex in range(len(linked))]).unique(return_inverse=True)[1]


def label_by_scipy(linked: Bool[Tensor, "n n"]) -> Int64[Tensor, " n"]:
    """Label components by SciPy, which is handed all edges."""
    rows, columns = linked.nonzero().numpy().T
    graph = coo_array((rows >= 0, (rows, columns)), shape=tuple(linked.shape))
    return torch.from_numpy(csgraph.connected_components(graph, directed=False)[1]).long()


def _means(vectors: Float[Tensor, "n d"], tau: float, label: Label) -> Float[Tensor, "m d"]:
    unit = _unit(vectors)
    labels = label((unit @ unit.T > tau).cpu()).to(vectors.device)
    num_members = torch.bincount(labels)
    total = torch.zeros(len(num_members), vectors.shape[1], device=vectors.device)
    return total.index_add_(0, labels, vectors) / num_members[:, None]


def _unit(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return functional.normalize(vectors, dim=-1)
