"""Similarity graphs by the book: float64, Python sets and breadth-first search.

Two readings of the definition are shared with the package: in the graph a zero-norm token is -1 similar to
everything, so that no tau in [-1, 1] links it and tau < -1 links all; and a token is not its own neighbour.
"""

from __future__ import annotations

from collections import deque

import numpy as np


def unit_vectors(tokens) -> np.ndarray:
    """Tokens (n, D) as float64 unit vectors; zero rows stay zero."""
    tokens = np.asarray(tokens, np.float64)
    largest = np.abs(tokens).max(axis=1, keepdims=True)
    scaled = tokens / np.where(largest > 0, largest, 1)
    norm = np.sqrt((scaled**2).sum(axis=1, keepdims=True))
    return scaled / np.where(norm > 0, norm, 1)


def similarities(tokens) -> np.ndarray:
    """Cosine similarity of all pairs (n, n)."""
    unit = unit_vectors(tokens)
    is_zero = ~unit.any(axis=1)
    cosine = np.clip(unit @ unit.T, -1, 1)
    cosine[is_zero, :] = cosine[:, is_zero] = -1
    return cosine


def neighbours(similarity: np.ndarray, tau: float, sampled: set[int] | None = None) -> list[set[int]]:
    """The neighbours of each vertex; with a sample, along edges that have an end in it."""
    n = len(similarity)
    return [
        {
            j
            for j in range(n)
            if j != i and similarity[i, j] > tau and (sampled is None or i in sampled or j in sampled)
        }
        for i in range(n)
    ]


def components(adjacency: list[set[int]]) -> list[list[int]]:
    """Connected components, ordered by their vertex of highest degree (ties: lowest index)."""
    unseen, found = set(range(len(adjacency))), []
    while unseen:
        start = unseen.pop()
        members, queue = {start}, deque([start])
        while queue:
            for other in adjacency[queue.popleft()] & unseen:
                unseen.discard(other)
                members.add(other)
                queue.append(other)
        found.append(sorted(members))
    return sorted(found, key=lambda members: max(members, key=lambda i: (len(adjacency[i]), -i)))


def labels_of(parts: list[list[int]]) -> list[int]:
    """The number of each vertex's part."""
    return [label for _, label in sorted((i, label) for label, part in enumerate(parts) for i in part)]
