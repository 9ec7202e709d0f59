"""The compressor by the book, in float64 with Python loops."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tests.reference.graph import components, labels_of, neighbours, similarities, unit_vectors


@dataclass(frozen=True)
class Outcome:
    """What the compressor must return, and how far it was from deciding otherwise.

    Attributes:
        margin: smallest distance of a similarity to the threshold, or between the two representatives most
            similar to a token. Rounding to float32 cannot change anything as long as it stays below.
    """

    tokens: np.ndarray
    component: list[int]
    assignment: list[int]
    num_spatial: int
    margin: float


def step(
    tokens: np.ndarray, tau: float, sampled: set[int] | None = None, windows: list[int] | None = None
) -> tuple[list[list[int]], float]:
    """Components of one token set, and the margin of its similarities; none between different windows."""
    similarity = similarities(tokens)
    off_diagonal = similarity[~np.eye(len(tokens), dtype=bool)]
    if windows is not None:
        similarity[np.not_equal.outer(windows, windows)] = -1
    margin = np.abs(off_diagonal - tau).min() if off_diagonal.size else np.inf
    return components(neighbours(similarity, tau, sampled)), float(margin)


def means(tokens: np.ndarray, parts: list[list[int]]) -> np.ndarray:
    """The mean of each part, coordinate by coordinate."""
    axes = range(tokens.shape[1])
    return np.array([[sum(float(tokens[i][d]) for i in part) / len(part) for d in axes] for part in parts])


def nearest(tokens: np.ndarray, representatives: np.ndarray, own: list[int]) -> tuple[list[int], float]:
    """The most similar representative of each token (ties: lowest), and the margin of the choice.

    Zero-norm tokens keep their own; zero-norm representatives attract nobody unless there are no others.
    """
    unit, targets = unit_vectors(tokens), unit_vectors(representatives)
    candidates = [k for k in range(len(targets)) if targets[k].any()]
    chosen, margin = [], np.inf
    for i in range(len(tokens)):
        if not unit[i].any() or not candidates:
            chosen.append(own[i])
            continue
        cosine = [float(unit[i] @ targets[k]) for k in candidates]
        best = max(range(len(candidates)), key=lambda c: (cosine[c], -c))
        others = cosine[:best] + cosine[best + 1 :]
        margin = min([margin, *(cosine[best] - other for other in others)])
        chosen.append(candidates[best])
    return chosen, float(margin)


def merge(tokens: np.ndarray, assignment: list[int], representatives: np.ndarray) -> np.ndarray:
    """(sum of the joined tokens + representative) / (their number + 1)."""
    merged = []
    for k, representative in enumerate(representatives):
        joined = [tokens[i] for i in range(len(tokens)) if assignment[i] == k]
        merged.append((sum(joined) + representative) / (len(joined) + 1))
    return np.array(merged)


def compress(
    frames,
    tau: float,
    samples: tuple[list[set[int]] | None, set[int] | None] = (None, None),
    temporal_window: int | None = None,
    in_order_of_place: bool = False,
) -> Outcome:
    """Spatial step, temporal step, merge of tokens (F, P, D).

    Args:
        frames: the tokens.
        tau: threshold of both steps.
        samples: the looked-at vertices of each frame, and of the representatives; None for all.
        temporal_window: frames of a window of the temporal step; None for all.
        in_order_of_place: sort the result by the mean index of the tokens of each component.
    """
    frames = np.asarray(frames, np.float64)
    tokens = frames.reshape(-1, frames.shape[-1])
    of_frame, of_representatives = samples
    spatial, margins = [], []
    for f, frame in enumerate(frames):
        parts, margin = step(frame, tau, of_frame[f] if of_frame else None)
        spatial += [[f * len(frame) + i for i in part] for part in parts]
        margins.append(margin)
    first = means(tokens, spatial)
    frame = [part[0] // frames.shape[1] for part in spatial]
    windows = [f // temporal_window for f in frame] if temporal_window else None
    temporal, margin = step(first, tau, of_representatives, windows)
    if in_order_of_place:
        members = {tuple(part): [i for k in part for i in spatial[k]] for part in temporal}
        temporal.sort(key=lambda part: Fraction(sum(members[tuple(part)]), len(members[tuple(part)])))
    representatives = means(first, temporal)
    of_spatial, of_temporal = labels_of(spatial), labels_of(temporal)
    component = [of_temporal[label] for label in of_spatial]
    assignment, choice = nearest(tokens, representatives, component)
    merged = merge(tokens, assignment, representatives)
    return Outcome(merged, component, assignment, len(spatial), min([*margins, margin, choice]))
