"""Meeting an exact number of tokens.

Whatever threshold the spatial step uses, cutting the temporal forest at the right place leaves exactly as many
tokens as wanted. The place of that cut is a threshold, too; the more the spatial step merges, the higher it lies.
The two steps share one threshold where both are equal, and that point is searched by the secant method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llava_scissor.compression.components import Components, count_neighbours, order_components
from llava_scissor.compression.linkage import Forest, maximum_spanning_forest
from llava_scissor.compression.similarity import TokenSets
from llava_scissor.compression.steps import SpatialStep, TwoSteps, Video

MAX_TRIALS = 5
"""Temporal forests computed at most in search of the shared threshold."""

CLOSE_ENOUGH = 0.05
"""A threshold at which the two steps come this close to the budget, as a share of it, ends the search."""


def meet_budget(video: Video, target: int, tau: float | None) -> TwoSteps:
    """Run the two steps so that exactly `target` components remain, or fewer where `tau` leads to fewer.

    Args:
        video: N tokens.
        target: 1..N.
        tau: threshold to start from and never exceed; None for no limit.

    Returns:
        The steps with the effective threshold: where the temporal forest was cut, never above `tau`.
    """
    at_tau = None if tau is None else video.two_steps(tau)
    if at_tau is not None and at_tau.temporal.count <= target:
        return at_tau
    trial = _search(video, target, 1.0 if tau is None else tau)
    temporal = _cut(trial.forest, target, trial.spatial.sets, trial.cut)
    return TwoSteps(trial.spatial, temporal, trial.cut)


def _cut(forest: Forest, num_components: int, sets: TokenSets, tau: float) -> Components:
    """Cut the forest of some sets and order the trees as components at `tau`."""
    return order_components(forest.cut(num_components), count_neighbours(sets, tau))


@dataclass(frozen=True, eq=False)
class _Trial:
    """The two steps with a threshold for the spatial one and the whole forest of the temporal one.

    Attributes:
        tau: threshold of the spatial step.
        cut: threshold of the temporal step that meets the budget; `tau` itself where that does.
        excess: tokens above the budget if both used `tau`, as a share of the budget.
    """

    tau: float
    spatial: SpatialStep
    forest: Forest
    cut: float
    excess: float


def _try(video: Video, frames: Forest, target: int, tau: float) -> _Trial:
    # The frames are cut by the weights that the search looks at: similarities computed again can differ in
    # their last bit, which would miss the budget where many are nearly equal.
    spatial = video.spatial_step(_cut(frames, frames.num_components(tau), video.frames, tau))
    forest = maximum_spanning_forest(spatial.sets)
    excess = forest.num_components(tau) / target - 1
    return _Trial(tau, spatial, forest, forest.threshold(target, tau), excess)


def _search(video: Video, target: int, limit: float) -> _Trial:
    """Return the trial that comes closest to the budget with one threshold for both steps.

    Args:
        video: N tokens.
        target: the budget.
        limit: highest threshold allowed; 1 allows all.
    """
    frames = maximum_spanning_forest(video.frames)

    def threshold(num_spatial: int) -> float:
        """The highest threshold at which the spatial step keeps no fewer tokens; equal weights merge together."""
        num_merges = video.num_tokens - num_spatial
        return float(frames.weight[num_merges]) if num_merges < len(frames.weight) else -1.0

    lowest, highest = threshold(target), limit
    trials: list[_Trial] = []
    tau = min(threshold(math.isqrt(target * video.num_tokens)), highest)
    while len(trials) < MAX_TRIALS:
        trials.append(_try(video, frames, target, tau))
        if abs(trials[-1].excess) <= CLOSE_ENOUGH:
            break
        if trials[-1].cut < tau:
            highest = tau
        else:
            lowest = tau
        tau = _where_equal(trials[-2:])
        if not lowest < tau < highest:
            tau = (lowest + highest) / 2
        if not lowest < tau < highest:
            break
    # The spatial step at the limit itself leaves so many tokens that the cut lies below the limit.
    allowed = [t for t in trials if t.cut <= limit] or [_try(video, frames, target, limit)]
    return min(allowed, key=lambda trial: abs(trial.excess))


def _where_equal(latest: list[_Trial]) -> float:
    """Estimate where threshold and cut are equal from one or two trials; the cut moves less than the threshold."""
    *earlier, last = latest
    gap = last.cut - last.tau
    if not earlier or earlier[0].cut - earlier[0].tau == gap:
        return last.tau + 0.8 * gap
    return last.tau + gap * (last.tau - earlier[0].tau) / (earlier[0].cut - earlier[0].tau - gap)
