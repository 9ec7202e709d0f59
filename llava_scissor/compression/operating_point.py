"""Meeting an exact number of tokens.

The two steps share one threshold. It is searched so that they leave the wanted number of tokens or a few more, and
those are merged along the strongest links that remain. The search begins on a few frames, where a trial costs
little, and moves on to twice as many each time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llava_scissor.compression.components import SimilarityGraph
from llava_scissor.compression.linkage import merge_strongest
from llava_scissor.compression.steps import SpatialStep, TwoSteps, Video

CLOSE_ENOUGH = 0.1
"""A threshold that leaves at most this share of the budget too many ends the search."""

AIM = 0.05
"""The share of the budget too many that the search aims at."""

STEEPER = 8.0
"""A trial changes the slope that is expected by at most this factor."""

DEPTH = 2.0**-6
"""The links that are left to merge along are first looked for no further than this below the threshold."""

MAX_TRIALS = 16
"""Thresholds tried at most on one number of frames."""

FEWEST_FRAMES = 8
"""Frames on which the search begins."""

STEP = 2.0**-16
"""Thresholds that are tried are multiples of this; closer ones are not told apart."""


def meet_budget(video: Video, target: int, tau: float | None) -> TwoSteps:
    """Run the two steps so that exactly `target` components remain, or fewer where `tau` leads to fewer.

    Args:
        video: N tokens.
        target: 1..N.
        tau: threshold to start from and never exceed; None for no limit.

    Returns:
        The steps, with the threshold at which they leave `target` components or up to a tenth more, of which the
        most similar are merged. Where no such threshold is found, it is the lowest known to leave more.
    """
    search = _Search(float(target), limit=1.0 if tau is None else tau)
    if tau is not None:
        trial = search.run(video, tau)
        if trial.count <= target:
            return TwoSteps(trial.spatial, trial.graph.components(), tau)
    guess, search.slope = _guess(video, target, search.limit)
    trial = search.until_close(video, guess)
    depth = min(DEPTH, (math.log(trial.count / target) + 0.02) / search.slope)
    labels = merge_strongest(trial.spatial.sets, trial.graph.labels, trial.count - target, trial.tau, depth)
    return TwoSteps(trial.spatial, trial.graph.components(labels), trial.tau)


@dataclass(frozen=True, eq=False)
class _Trial:
    """The two steps at one threshold."""

    tau: float
    spatial: SpatialStep
    graph: SimilarityGraph

    @property
    def count(self) -> int:
        return self.graph.count


@dataclass(eq=False)
class _Search:
    """The search on one number of frames.

    Attributes:
        target: number of tokens wanted.
        limit: highest threshold allowed.
        slope: growth of the logarithm of the number of tokens with the threshold, as last seen.
        too_few: the trial with the highest threshold known to leave too few.
        enough: the trial with the lowest threshold known to leave enough.
        last: the latest trial.
        num_trials: so far.
    """

    target: float
    limit: float
    slope: float = 40.0
    too_few: _Trial | None = None
    enough: _Trial | None = None
    last: _Trial | None = None
    num_trials: int = 0

    def run(self, video: Video, tau: float) -> _Trial:
        """Run the steps at a threshold and narrow the interval."""
        trial = _Trial(tau, *video.graphs(tau))
        if self.excess(trial) < 0:
            self.too_few = trial
        else:
            self.enough = trial
        other = self.too_few and self.enough and (self.enough if trial is self.too_few else self.too_few)
        other = other or self.last
        if other and other.tau != tau:
            rise = math.log(trial.count / other.count) / (tau - other.tau)
            self.slope = min(max(rise, self.slope / STEEPER), self.slope * STEEPER)
        self.last = trial
        self.num_trials += 1
        return trial

    def excess(self, trial: _Trial) -> float:
        """Return how many tokens too many a trial leaves, as a logarithm."""
        return math.log(trial.count / self.target)

    def until_close(self, video: Video, tau: float, close: float = CLOSE_ENOUGH) -> _Trial:
        """Try thresholds, the given one first, until one leaves enough tokens but not many more."""
        while self.num_trials < MAX_TRIALS:
            trial = self.run(video, tau)
            if 0 <= self.excess(trial) <= math.log1p(close):
                return trial
            low = self.too_few.tau if self.too_few else -1 - STEP
            high = self.enough.tau if self.enough else self.limit + STEP
            tau = self._next(trial, low, high)
            if not low < tau < high:
                break
        return self.enough or self.run(video, self.limit)

    def _next(self, trial: _Trial, low: float, high: float) -> float:
        """Where the logarithm reaches the aim if it is linear; the middle now and then, where it is not."""
        stride = (self.excess(trial) - AIM) / self.slope
        if self.too_few and self.enough and self.num_trials % 4 == 3:
            stride = trial.tau - (low + high) / 2
        tau = _on_grid(min(trial.tau - stride, self.limit))
        return tau if low < tau < high else _on_grid((low + high) / 2)


def _guess(video: Video, target: int, limit: float) -> tuple[float, float]:
    """Estimate the threshold from parts of the video, and how steeply the number of tokens grows there.

    The number of tokens is taken to grow with a power of the number of frames.
    """
    num_frames = len(video.tokens)
    sizes = [num_frames]
    while sizes[-1] >= 2 * FEWEST_FRAMES:
        sizes.append(sizes[-1] // 2)
    tau, slope, power, before = min(0.95, limit), 40.0, 0.85, None
    for size in reversed(sizes[1:]):
        step = num_frames // size
        part = video.part(slice(0, size * step, step))
        search = _Search(max(1.0, target * (size / num_frames) ** power), limit, slope)
        trial = search.until_close(part, tau)
        if before:
            power = min(1.0, max(0.0, math.log2(trial.count / before)))
        slope, before = search.slope, trial.count
        expected = trial.count * (num_frames / size) ** power
        tau = trial.tau - (math.log(expected / target) - AIM) / slope
        tau = _on_grid(min(limit, max(-1.0, tau)))
    return tau, slope


def _on_grid(tau: float) -> float:
    return round(tau / STEP) * STEP
