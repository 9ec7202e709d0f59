from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.compression.baselines.selection import distance, select, top, top_per_frame
from llava_scissor.compression.baselines.shares import even_positions, even_shares, weighted_shares
from tests.compression.draws import draw, gaussian


@given(st.integers(0, 500), st.integers(1, 60))
def test_even_shares_differ_by_one_at_most(total, count):
    shares = even_shares(total, count)
    assert len(shares) == count
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


@given(st.integers(1, 60), st.integers(1, 60))
def test_larger_shares_are_spread(total, count):
    # However many shares in a row are taken, their sum is within one of its even part.
    shares = even_shares(total, count)
    for first in range(count):
        for last in range(first, count):
            assert abs(sum(shares[first : last + 1]) - total * (last + 1 - first) / count) <= 1


@given(st.integers(1, 300), st.data())
def test_even_positions_are_distinct_and_symmetric(size, data):
    count = data.draw(st.integers(0, size))
    positions = even_positions(size, count)
    assert len(set(positions)) == count
    assert positions == sorted(positions)
    assert all(0 <= position < size for position in positions)
    gaps = {high - low for low, high in itertools.pairwise(positions)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_selected_tokens_are_the_source_s_rows():
    video = draw(gaussian, 3, 4, 5).to(torch.bfloat16)
    kept = torch.tensor([1, 4, 5, 11])
    result = select(video, kept)
    assert result.tokens.dtype == torch.bfloat16
    assert torch.equal(result.tokens, video.flatten(0, 1)[kept])
    assert result.assignment.tolist() == [-1, 0, -1, -1, 1, 2, -1, -1, -1, -1, -1, 3]
    assert torch.equal(result.component, result.assignment)
    assert result.sizes.tolist() == [1, 1, 1, 1]
    assert result.frame_span.tolist() == [[0, 0], [1, 1], [1, 1], [2, 2]]
    assert (result.num_input, result.num_spatial, result.num_kept, result.tau) == (12, 12, 4, None)


@pytest.mark.parametrize(
    ("total", "weights", "caps", "at_least", "expected"),
    [
        (10, [1, 1, 2], [10, 10, 10], 0, [3, 2, 5]),  # 2.5, 2.5, 5
        (10, [1, 1, 8], [10, 10, 4], 0, [3, 3, 4]),
        (10, [0, 0, 1], [10, 10, 4], 0, [3, 3, 4]),
        (10, [0, 0, 1], [10, 10, 20], 1, [1, 1, 8]),
        (2, [0, 0, 1], [10, 10, 20], 1, [0, 0, 2]),
        (5, [0, 0], [9, 9], 0, [3, 2]),
        (7, [1, 1, 1], [1, 5, 1], 0, [1, 5, 1]),
        (3, [1], [3], 0, [3]),
    ],
)
def test_weighted_shares(total, weights, caps, at_least, expected):
    assert weighted_shares(total, weights, caps, at_least) == expected


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(0, 12)), min_size=1, max_size=9), st.data())
def test_weighted_shares_add_up_within_their_caps(groups, data):
    weights, caps = zip(*groups, strict=True)
    total = data.draw(st.integers(0, sum(caps)))
    shares = weighted_shares(total, weights, caps, data.draw(st.integers(0, 2)))
    assert sum(shares) == total
    assert all(0 <= share <= cap for share, cap in zip(shares, caps, strict=True))


def test_of_equal_scores_the_first_are_the_highest():
    scores = torch.tensor([1.0, 3, 2, 3, 2, 2])
    assert top(scores, 4).tolist() == [1, 2, 3, 4]
    assert top_per_frame(scores.view(2, 3), [1, 2]).tolist() == [1, 3, 4]


def test_equal_tokens_have_no_distance_and_zero_ones_are_unlike_all():
    unit = torch.nn.functional.normalize(draw(gaussian, 1, 20, 50)[0], dim=-1)
    assert distance(unit, unit).tolist() == [0.0] * 20
    torch.testing.assert_close(distance(unit[1:], unit[:-1]), 1 - (unit[1:] * unit[:-1]).sum(-1))
    assert distance(unit, torch.zeros_like(unit)).tolist() == [1.0] * 20
    assert distance(torch.zeros(1, 5), torch.zeros(1, 5)).tolist() == [1.0]
