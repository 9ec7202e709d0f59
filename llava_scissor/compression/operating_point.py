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

ROUGHLY = 0.2
"""On a part of the video a number of tokens is close enough if it is off by this, as a logarithm."""

MAX_ROUGH_TRIALS = 5
"""Thresholds tried at most on one part of the video."""

GROWTH = 0.85
"""The power of the number of frames that the number of tokens grows with, as long as it is not known."""

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

    The logarithm of the number is taken as linear in `_height`, the number itself in the number of frames.
    """
    num_frames = len(video.tokens)
    sizes = [num_frames]
    while sizes[-1] >= 2 * FEWEST_FRAMES:
        sizes.append(sizes[-1] // 2)
    tau, slope, close, before = min(0.95, limit), 1.0, ROUGHLY / 2, None
    if len(sizes) == 1:
        return tau, 40.0
    for size in reversed(sizes[1:]):
        step = num_frames // size
        part = video.part(slice(0, size * step, step))
        growth = (num_frames / size) ** GROWTH
        found, count, slope = _roughly(part, tau, max(1.0, target / growth), slope, limit, close)
        if before is not None:  # the number at `tau` in half as many frames
            before *= math.exp(slope * (_height(found) - _height(tau)))
            growth = 1 + (num_frames / size - 1) * min(max(2 - 2 * before / count, 0.0), 1.2)
        excess = math.log(count * growth / target) - AIM
        tau = _at_height(_height(found) - excess / slope, limit)
        before, close = count * math.exp(slope * (_height(tau) - _height(found))), ROUGHLY
    return tau, slope / (1 - tau + STEP)


def _roughly(
    part: Video, tau: float, target: float, slope: float, limit: float, close: float
) -> tuple[float, int, float]:
    """Try thresholds on a part until the number of tokens is off by at most `close`, as a logarithm.

    Returns:
        The last threshold, its number of tokens, and how steeply the logarithm grows with the height.
    """
    trials: list[tuple[float, float]] = []  # heights and logarithms of the excess
    while True:
        count = part.graphs(tau)[1].count
        trials.append((_height(tau), math.log(count / target)))
        too_few = [trial for trial in trials if trial[1] < 0]
        enough = [trial for trial in trials if trial[1] >= 0]
        (left, low), (right, high) = (
            (max(too_few), min(enough))
            if too_few and enough
            else (trials[-1], trials[-2 if len(trials) > 1 else -1])
        )
        if left != right:
            slope = min(max((high - low) / (right - left), 0.25), 32.0)
        height, excess = trials[-1]
        following = _at_height(height - excess / slope, limit)
        if abs(excess) <= close or following == tau or len(trials) == MAX_ROUGH_TRIALS:
            return tau, count, slope
        tau = following


def _height(tau: float) -> float:
    """Place a threshold on a scale on which the logarithm of the number of tokens grows evenly."""
    return -math.log(1 - tau + STEP)


def _at_height(height: float, limit: float) -> float:
    return _on_grid(min(limit, max(-1.0, 1 + STEP - math.exp(-height))))


def _on_grid(tau: float) -> float:
    return round(tau / STEP) * STEP
