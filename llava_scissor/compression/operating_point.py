"""Meeting an exact number of tokens.

The two steps share one threshold. It is searched so that they leave the wanted number of tokens or a few more, and
those are merged along the strongest links that remain. A part of the video tells where to begin. After the first
trial on the whole video, only what another threshold changes is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from llava_scissor.compression.components import SimilarityGraph
from llava_scissor.compression.linkage import merge_strongest
from llava_scissor.compression.links import Links
from llava_scissor.compression.steps import SpatialStep, TwoSteps, Video

CLOSE_ENOUGH = 0.25
"""A threshold that leaves at most this share of the budget too many ends the search."""

AIM = 0.11
"""What the search aims at: the logarithm of the number of tokens left over that of the budget."""

MAX_TRIALS = 16
"""Thresholds tried at most on the whole video."""

REACH = 0.9
"""Links are listed down to where the logarithm of the number of tokens is expected to be less by this."""

PART = 8
"""The part of the video on which the search begins has every so-many-th frame."""

FEWEST_FRAMES = 2
"""Frames of the smallest part."""

SATURATION = 0.16
"""The power of the frames that the number of tokens grows with: 1 + this * logarithm of the share that is kept."""

STEEPER = 1.8
"""How much steeper the curve is on the whole video than on the part."""

ROUGHLY = 0.2
"""On the part a number of tokens is close enough if its logarithm is off by this."""

MAX_ROUGH_TRIALS = 5
"""Thresholds tried at most on the part."""

START, SLOPE = 0.9, 1.0
"""The first threshold that is tried, and how steep the curve is expected to be there."""

STEP = 2.0**-16
"""Thresholds that are tried are multiples of this; closer ones are not told apart."""


def meet_budget(video: Video, target: int, tau: float | None) -> TwoSteps:
    """Run the two steps so that exactly `target` components remain, or fewer where `tau` leads to fewer.

    Args:
        video: N tokens.
        target: 1..N.
        tau: threshold to start from and never exceed; None for no limit.

    Returns:
        The steps, with the threshold at which they leave `target` components or up to a quarter more, of which the
        most similar are merged. Where no such threshold is found, it is the lowest known to leave more.
    """
    trial, depth = find_threshold(video, target, tau)
    sets, labels, surplus = trial.spatial.sets, trial.graph.labels, max(0, trial.count - target)
    labels = merge_strongest(sets, labels, surplus, trial.tau, depth, trial.links)
    return TwoSteps(trial.spatial, trial.graph.components(labels), trial.tau)


def find_threshold(video: Video, target: int, tau: float | None) -> tuple[_Trial, float]:
    """Find a threshold that leaves `target` tokens or a few more.

    Args:
        video: the tokens.
        target: number of tokens wanted.
        tau: threshold to start from and never exceed; None for no limit.

    Returns:
        The steps there, and how far below it the links are expected along which what is too many can be merged.
        Where `tau` leaves at most `target`, the steps at `tau`.
    """
    limit, trial = 1.0 if tau is None else tau, None
    if tau is not None:
        trial = _Trial.at(video, tau, tau)
        if trial.count <= target:
            return trial, STEP
    guess, slope = _guess(video, float(target), limit)
    curve = _Curve(float(target), limit, slope)
    trial = _search(video, curve, guess, trial)
    lowest = curve.below(trial.tau, 2 * math.log(trial.count / target) + 0.02)
    return trial, max(trial.tau - lowest, STEP)


@dataclass(frozen=True, eq=False)
class _Trial:
    """The two steps at one threshold.

    Attributes:
        video: the tokens.
        tau: the threshold.
        spatial: the spatial step.
        links: the pairs of its representatives above a lower threshold; None if they are too many.
        graph: their graph at `tau`.
        in_frames: the pairs of tokens inside frames above a lower threshold; None if they are too many.
    """

    video: Video
    tau: float
    spatial: SpatialStep
    links: Links | None
    graph: SimilarityGraph
    in_frames: Links | None

    @classmethod
    def at(cls, video: Video, tau: float, low: float, before: _Trial | None = None) -> _Trial:
        """Run both steps, with what can be taken over from another threshold.

        Args:
            video: the tokens.
            tau: threshold.
            low: where the list of links ends.
            before: a trial at another threshold.
        """
        in_frames = before and before.in_frames
        if not before or (in_frames and in_frames.low > tau):
            in_frames = Links.above(video.frames, low)
        components = SimilarityGraph(video.frames, tau, in_frames).components()
        if before and before.links and before.can_be_taken_over(tau, low, components.count):
            spatial, changes = video.spatial_step_after(before.spatial, components)
            links = before.links.updated(spatial.sets, changes.number, changes.is_new)
        else:
            spatial = video.spatial_step(components)
            links = Links.above(spatial.sets, low)
        return cls(video, tau, spatial, links, SimilarityGraph(spatial.sets, tau, links), in_frames)

    def can_be_taken_over(self, tau: float, low: float, size: int) -> bool:
        """Tell whether the links suffice for a threshold with `size` representatives, down to `low`."""
        if self.links is None or self.links.low > tau - (tau - low) / 8:
            return False
        is_exact = self.spatial.sets.sample is None and self.video.is_exact(size)
        return is_exact and not self.spatial.sets.directions.is_scaled

    @property
    def count(self) -> int:
        """Number of tokens that both steps leave."""
        return self.graph.count


@dataclass(eq=False)
class _Curve:
    """How many tokens too many a threshold leaves, as a logarithm, over its height.

    Attributes:
        target: number of tokens wanted.
        limit: highest threshold allowed.
        slope: growth of the logarithm with the height, as last seen.
        points: heights of the thresholds that were tried, and the logarithms.
    """

    target: float
    limit: float
    slope: float = SLOPE
    points: list[tuple[float, float]] = field(default_factory=list)

    def add(self, tau: float, count: int) -> float:
        """Add what a threshold leaves; return how many too many that is, as a logarithm."""
        self.points.append((_height(tau), math.log(count / self.target)))
        (left, low), (right, high) = self._nearest() or (self.points[-1], self.points[-2:][0])
        if left != right:
            self.slope = min(max((high - low) / (right - left), 0.25), 32.0)
        return self.points[-1][1]

    def next(self, aim: float) -> float | None:
        """Return the threshold that should leave as many too many as `aim`; None if all are ruled out."""
        height, excess = self.points[-1]
        tau = self._at(height - (excess - aim) / self.slope)
        around = self._nearest()
        if around is None:
            return None if _height(tau) == height else tau
        low, high = around[0][0], around[1][0]
        if len(self.points) % 2 == 1 or not low < _height(tau) < high:  # the curve may have a step
            tau = self._at((low + high) / 2)
        return tau if low < _height(tau) < high else None

    def below(self, tau: float, drop: float) -> float:
        """Return the threshold that should leave fewer tokens than another by `drop`, as a logarithm."""
        return self._at(_height(tau) - drop / self.slope)

    def _nearest(self) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """Return the highest point known to leave too few and the lowest known to leave enough."""
        too_few = [point for point in self.points if point[1] < 0]
        enough = [point for point in self.points if point[1] >= 0]
        return (max(too_few), min(enough)) if too_few and enough else None

    def _at(self, height: float) -> float:
        return min(self.limit, _on_grid(max(-1.0, 1 + STEP - math.exp(-height))))


def _search(video: Video, curve: _Curve, tau: float, enough: _Trial | None) -> _Trial:
    """Try thresholds, the given one first, until one leaves enough tokens but not many more.

    `enough` is a trial at the limit, if there was one.
    """
    trial = enough
    for _ in range(MAX_TRIALS):
        trial = _Trial.at(video, tau, curve.below(tau, REACH), trial)
        excess = curve.add(tau, trial.count)
        if 0 <= excess <= math.log1p(CLOSE_ENOUGH):
            return trial
        enough = trial if excess >= 0 else enough
        following = curve.next(AIM)
        if following is None:
            break
        tau = following
    return enough or _Trial.at(video, curve.limit, curve.limit)


def _guess(video: Video, target: float, limit: float) -> tuple[float, float]:
    """Estimate the threshold, and the slope of the curve there, from a part of the video."""
    num_frames = len(video.tokens) // PART
    if num_frames < FEWEST_FRAMES:
        return min(START, limit), SLOPE
    part = video.part(slice(0, num_frames * PART, PART))
    growth = PART ** min(max(1 + SATURATION * math.log(target / video.num_tokens), 0.1), 1.0)
    curve = _Curve(max(1.0, target / growth), limit)
    tau, curve.slope = _guess(part, curve.target, limit)
    for _ in range(MAX_ROUGH_TRIALS):
        excess = curve.add(tau, part.count(tau))
        tau = curve.next(0.0) or tau
        if abs(excess) <= ROUGHLY:
            break
    return tau, curve.slope * STEEPER


def _height(tau: float) -> float:
    """Place a threshold on a scale on which the logarithm of the number of tokens grows evenly."""
    return -math.log(1 - tau + STEP)


def _on_grid(tau: float) -> float:
    return round(tau / STEP) * STEP
