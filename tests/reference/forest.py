"""Single linkage by Kruskal's algorithm and by SciPy."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage


def kruskal_parts(n: int, weights: dict[tuple[int, int], float], count: int) -> set[frozenset[int]]:
    """Join n vertices along the strongest edges (ties: lower, then higher vertex) until `count` parts are left."""
    parts = [{i} for i in range(n)]
    left = n
    for _, i, j in sorted((-weight, i, j) for (i, j), weight in weights.items()):
        if left == count:
            break
        if parts[i] is not parts[j]:
            parts[i] |= parts[j]
            for member in parts[j]:
                parts[member] = parts[i]
            left -= 1
    return {frozenset(part) for part in parts}


def single_linkage_count(similarity: np.ndarray, tau: float) -> int:
    """Number of components of the graph with an edge wherever similarity > tau."""
    n = len(similarity)
    if n == 1:
        return 1
    distance = 1 - similarity[np.triu_indices(n, 1)]
    # fcluster joins what is at most t apart, the graph what is less: take the next smaller number.
    return int(fcluster(linkage(distance, "single"), np.nextafter(1 - tau, -np.inf), "distance").max())
