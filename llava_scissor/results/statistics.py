"""How sure an accuracy is, a difference between two, and a ratio.

Questions about one clip stand or fall together, so that clips, not questions, are drawn in the bootstrap.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np

_NUM_DRAWS = 2000
_SEED = 0
_BOUNDS = (2.5, 97.5)


class Scored(Protocol):
    """An answer that is right or wrong."""

    @property
    def clip(self) -> int:
        """Number of the clip that the question is about."""
        ...

    @property
    def question(self) -> str:
        """Its text."""
        ...

    @property
    def is_right(self) -> bool:
        """Whether it is the expected answer."""
        ...


@dataclass(frozen=True)
class Estimate:
    """A share or a difference of shares with its 95 % interval.

    Attributes:
        value: over all questions.
        low: lower end of the interval.
        high: upper end.
        num_questions: how many there are.
    """

    value: float
    low: float
    high: float
    num_questions: int


def estimate_accuracy(answers: Sequence[Scored]) -> Estimate:
    """Return the share of right answers."""
    right, count = _by_clip(answers, {a.clip for a in answers})
    return _estimate(lambda weights: (weights @ right) / (weights @ count), len(right), len(answers))


def estimate_difference(answers: Sequence[Scored], reference: Sequence[Scored]) -> Estimate:
    """Return by how much the share of right answers lies above that of a reference, on the same questions.

    Raises:
        ValueError: the two are not about the same questions.
    """
    questions = [{(a.clip, a.question) for a in group} for group in (answers, reference)]
    if questions[0] != questions[1]:
        raise ValueError("the two were not asked the same questions: compare only what was asked of both")
    clips = {a.clip for a in answers}
    (right, count), (other, _) = _by_clip(answers, clips), _by_clip(reference, clips)
    return _estimate(
        lambda weights: (weights @ (right - other)) / (weights @ count), len(right), len(answers)
    )


@dataclass(frozen=True)
class Stratum:
    """Questions whose mean score is one part of a total, asked of a method and of a reference.

    Attributes:
        weight: of the mean in the total, relative to that of the others.
        clips: the clip of each question, by any name.
        scores: of the method.
        reference: scores of the reference.
    """

    weight: float
    clips: Sequence[Hashable]
    scores: Sequence[float]
    reference: Sequence[float]


def estimate_ratio(strata: Sequence[Stratum]) -> Estimate:
    """Return the total of the strata relative to that of the reference; clips are drawn within each stratum."""
    rng = np.random.default_rng(_SEED)
    totals = np.zeros((1 + _NUM_DRAWS, 2))  # the first is that of all questions
    for stratum in strata:
        place = {clip: i for i, clip in enumerate(dict.fromkeys(stratum.clips))}
        sums = np.zeros((len(place), 3))
        rows = [place[clip] for clip in stratum.clips]
        np.add.at(sums, rows, np.column_stack([stratum.scores, stratum.reference, np.ones(len(rows))]))
        draws = rng.multinomial(len(place), np.full(len(place), 1 / len(place)), size=_NUM_DRAWS)
        drawn = np.vstack([np.ones(len(place)), draws]) @ sums
        totals += stratum.weight * drawn[:, :2] / drawn[:, 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = totals[:, 0] / totals[:, 1]
    low, high = np.nanpercentile(ratios[1:], _BOUNDS)
    return Estimate(float(ratios[0]), float(low), float(high), sum(len(s.clips) for s in strata))


def _by_clip(answers: Iterable[Scored], clips: set[int]) -> tuple[np.ndarray, np.ndarray]:
    place = {clip: i for i, clip in enumerate(sorted(clips))}
    right, count = np.zeros(len(place)), np.zeros(len(place))
    for answer in answers:
        right[place[answer.clip]] += answer.is_right
        count[place[answer.clip]] += 1
    return right, count


def _estimate(statistic, num_clips: int, num_questions: int) -> Estimate:
    low, high = np.percentile(statistic(_draws(num_clips)), _BOUNDS)
    value = statistic(np.ones(num_clips))
    return Estimate(float(value), float(low), float(high), num_questions)


@cache
def _draws(num_clips: int) -> np.ndarray:
    """Return how often each clip is in each draw (draws, clips)."""
    shares = np.full(num_clips, 1 / num_clips)
    return np.random.default_rng(_SEED).multinomial(num_clips, shares, size=_NUM_DRAWS).astype(float)
