"""Clusters around peaks of density, and cutting a video into segments."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float32
from torch import Tensor

ROWS_EACH = 2**10
"""Rows of the matrix of distances looked at a time where a copy is needed."""


def peak_scores(points: Float32[Tensor, "n d"], num_neighbours: int) -> tuple[Tensor, Tensor]:
    """Score points by density times distance to the nearest denser point.

    Args:
        points: n of them, at least one.
        num_neighbours: points that the density of one is taken from, itself included.

    Returns:
        The logarithm of the score, which does not underflow (n,), and all squared distances / D (n, n).

    Cost: n^2 * D multiply-adds; memory for n^2 distances.

    Reference: density peaks (Rodriguez and Laio, 2014) with densities from nearest neighbours (Du and others,
    2016). Of equally dense points the lower index counts as denser; no random numbers are added.
    """
    centred = points - points.mean(0)  # distances stay, and lose fewer digits
    squares = centred.square().sum(1)
    apart = torch.addmm(squares[:, None] + squares, centred, centred.T, alpha=-2).clamp_(min=0)
    apart.div_(points.shape[1]).fill_diagonal_(0)
    density = -apart.topk(min(num_neighbours, len(points)), dim=1, largest=False).values.mean(1)
    order = density.argsort(descending=True, stable=True)
    rank = order.argsort()
    to_denser = torch.cat(
        [
            rows.masked_fill(rank >= own[:, None], torch.inf).amin(1)
            for rows, own in zip(apart.split(ROWS_EACH), rank.split(ROWS_EACH), strict=True)
        ]
    )
    to_denser[order[0]] = apart.max()
    return density + to_denser.log() / 2, apart


def density_peaks(points: Float32[Tensor, "n d"], count: int, num_neighbours: int) -> tuple[Tensor, Tensor]:
    """Cluster points around the `count` best of `peak_scores`, 1 <= count <= n.

    Returns:
        Ascending indices of the centres (count,), and for each point the number of the nearest centre (n,).
    """
    scores, apart = peak_scores(points, num_neighbours)
    centres = scores.argsort(descending=True, stable=True)[:count].sort().values
    label = apart[:, centres].argmin(1)
    label[centres] = torch.arange(count, device=label.device)
    return centres, label


def segments(similarity: Float32[Tensor, " t"], at_least: int, tau: float) -> list[tuple[int, int]]:
    """Cut a video behind every frame whose similarity to the next is below tau, and at the lowest others.

    Args:
        similarity: of each frame to the next, one fewer than there are frames.
        at_least: number of segments, if there are that many frames.
        tau: threshold.

    Returns:
        First frame and the frame behind the last of each segment, in order.
    """
    lowest = similarity.argsort(stable=True)[: at_least - 1].tolist()
    behind = {0, len(similarity) + 1, *(f + 1 for f in lowest)}
    behind |= {f + 1 for f, value in enumerate(similarity.tolist()) if value < tau}
    return list(pairwise(sorted(behind)))
