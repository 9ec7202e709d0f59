"""Clusters around peaks of density, as their definition says."""

from __future__ import annotations

import math

from torch import Tensor


def peaks_by_loops(points: Tensor, count: int, num_neighbours: int) -> tuple[list[int], list[int]]:
    """Centres and labels of points (n, D) in float64."""
    n, width = points.shape
    apart = [[math.dist(a, b) / math.sqrt(width) for b in points.tolist()] for a in points.tolist()]
    density = [
        math.exp(-sum(d * d for d in sorted(row)[:num_neighbours]) / min(num_neighbours, n)) for row in apart
    ]
    order = sorted(range(n), key=lambda i: (-density[i], i))
    score = {order[0]: density[order[0]] * max(map(max, apart))}
    for place, i in enumerate(order[1:], 1):
        score[i] = density[i] * min(apart[i][j] for j in order[:place])
    centres = sorted(sorted(score, key=lambda i: (-score[i], i))[:count])
    label = [min(range(count), key=lambda c: apart[i][centres[c]]) for i in range(n)]
    for number, centre in enumerate(centres):
        label[centre] = number
    return centres, label
