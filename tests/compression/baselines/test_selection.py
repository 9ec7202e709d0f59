from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.compression.baselines.selection import even_positions, even_shares, select
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
