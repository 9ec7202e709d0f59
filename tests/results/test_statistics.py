from __future__ import annotations

import numpy as np
import pytest

from llava_scissor.results.answers import SuiteAnswer
from llava_scissor.results.statistics import (
    Stratum,
    estimate_accuracy,
    estimate_difference,
    estimate_ratio,
)


def answers(right: list[list[bool]], method: str = "m") -> list[SuiteAnswer]:
    """Answers to the questions of some clips, right or wrong as given."""
    return [
        SuiteAnswer(
            "s", method, 0.5, clip, "count", f"question {i}", "yes", "yes" if r else "no", 10, 5, 0.0, 0.0
        )
        for clip, rights in enumerate(right)
        for i, r in enumerate(rights)
    ]


def draw(share: float, num_clips: int, seed: int, per_clip: int = 1) -> list[list[bool]]:
    return np.random.default_rng(seed).random((num_clips, per_clip)).__lt__(share).tolist()


def test_the_share_counts_questions() -> None:
    estimate = estimate_accuracy(answers([[True, True, False], [True]]))
    assert estimate.value == 0.75
    assert estimate.num_questions == 4
    assert estimate.low <= 0.75 <= estimate.high


def test_the_interval_is_that_of_a_binomial_for_single_questions() -> None:
    estimate = estimate_accuracy(answers(draw(0.7, 500, 1)))
    error = 1.96 * (estimate.value * (1 - estimate.value) / 500) ** 0.5
    assert estimate.low == pytest.approx(estimate.value - error, abs=0.006)
    assert estimate.high == pytest.approx(estimate.value + error, abs=0.006)


def test_questions_that_stand_and_fall_together_count_once() -> None:
    single = draw(0.7, 100, 2)
    alone = estimate_accuracy(answers(single))
    copies = estimate_accuracy(answers([clip * 9 for clip in single]))
    assert (copies.value, copies.low, copies.high) == (alone.value, alone.low, alone.high)


def test_a_difference_is_paired() -> None:
    """Two methods that differ on few clips are told apart, although each is uncertain by itself."""
    base = draw(0.5, 300, 3)
    better = [[True] if i % 15 == 0 else clip for i, clip in enumerate(base)]
    difference = estimate_difference(answers(better), answers(base))
    gain = np.mean(better) - np.mean(base)
    assert difference.value == pytest.approx(gain)
    assert 0 < difference.low < gain < difference.high
    assert (
        difference.high - difference.low
        < 0.05
        < 0.1
        < np.ptp([estimate_accuracy(answers(base)).low, estimate_accuracy(answers(base)).high])
    )


def test_no_difference_is_none() -> None:
    base = draw(0.5, 50, 4)
    estimate = estimate_difference(answers(base), answers(base))
    assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)


def test_the_same_answers_have_the_same_interval() -> None:
    base = draw(0.5, 50, 5)
    assert estimate_accuracy(answers(base)) == estimate_accuracy(answers(base))


def test_other_questions_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="not asked the same questions"):
        estimate_difference(answers([[True], [False]]), answers([[True]]))


def test_a_ratio_weighs_its_strata() -> None:
    strata = [
        Stratum(3, range(4), [1, 1, 0, 0], [1, 1, 1, 1]),
        Stratum(1, range(2), [1, 0], [1, 0]),
    ]
    estimate = estimate_ratio(strata)
    assert estimate.value == pytest.approx((3 * 0.5 + 0.5) / (3 * 1 + 0.5))
    assert estimate.num_questions == 6
    assert estimate.low < estimate.value < estimate.high


def test_the_interval_of_a_ratio_covers_it() -> None:
    """Of 60 pairs of accuracies, drawn with a true ratio of 0.8 and paired, most intervals hold it."""
    rng = np.random.default_rng(6)
    holds = 0
    for _ in range(60):
        reference = rng.random(200) < 0.75
        scores = reference & (rng.random(200) < 0.8)
        estimate = estimate_ratio([Stratum(1, range(200), scores, reference)])
        holds += estimate.low <= 0.8 <= estimate.high
    assert 51 <= holds < 60


def test_equal_scores_have_a_ratio_of_one() -> None:
    scores = [1, 0, 1, 1]
    estimate = estimate_ratio([Stratum(1, range(4), scores, scores)])
    assert (estimate.value, estimate.low, estimate.high) == (1, 1, 1)
