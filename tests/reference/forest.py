"""Maximum spanning trees and single linkage, by Kruskal's algorithm and by SciPy."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage


def kruskal(similarity: np.ndarray, sampled: set[int] | None = None) -> list[float]:
    """Weights of a maximum spanning tree, strongest first; the weights of all such trees are the same."""
    n = len(similarity)
    edges = sorted(
        (-float(max(similarity[i, j], similarity[j, i])), i, j)
        for i in range(n)
        for j in range(i + 1, n)
        if sampled is None or i in sampled or j in sampled
    )
    trees, weights = [{i} for i in range(n)], []
    for negative, i, j in edges:
        if trees[i] is not trees[j]:
            trees[i] |= trees[j]
            for member in trees[j]:
                trees[member] = trees[i]
            weights.append(-negative)
    return weights


def single_linkage_count(similarity: np.ndarray, tau: float) -> int:
    """Number of components of the graph with an edge wherever similarity > tau."""
    n = len(similarity)
    if n == 1:
        return 1
    distance = 1 - similarity[np.triu_indices(n, 1)]
    # fcluster joins what is at most t apart, the graph what is less: take the next smaller number.
    return int(fcluster(linkage(distance, "single"), np.nextafter(1 - tau, -np.inf), "distance").max())
