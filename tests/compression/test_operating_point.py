from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.compression import ScissorConfig, compress, similarity
from tests.compression.checks import assert_same_bytes, assert_well_formed
from tests.compression.draws import (
    KINDS,
    ROUNDING,
    constant,
    draw,
    duplicates,
    gaussian,
    ratio_of,
    smooth,
    ties,
    videos,
)

RATIOS = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.99, 1.0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_the_budget_is_met(kind, ratio):
    video = draw(kind, 4, 25, 8)
    result = compress(video, ScissorConfig(retention_ratio=ratio))
    assert result.num_kept == max(1, math.floor(ratio * 100))
    assert_well_formed(result, video)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("search", [{}, {"sample_size": 1}, {"sample_size": 4}, {"epsilon": 1.0}])
def test_every_number_of_tokens_can_be_asked_for(kind, search):
    video = draw(kind, 3, 6, 4)
    counts = [
        compress(video, ScissorConfig(retention_ratio=ratio_of(count, 18), **search)).num_kept
        for count in range(1, 19)
    ]
    assert counts == list(range(1, 19))


@given(videos(max_size=9, max_width=40), st.floats(0, 1, exclude_min=True), st.integers(1, 10))
def test_the_budget_is_met_by_a_sampled_search(video, ratio, sample_size):
    result = compress(video, ScissorConfig(retention_ratio=ratio, sample_size=sample_size))
    assert result.num_kept == max(1, math.floor(ratio * result.num_input))
    assert_well_formed(result, video)


@pytest.mark.parametrize("kind", [constant, duplicates, ties, gaussian])
@pytest.mark.parametrize("width", [3, 100, 257])
@pytest.mark.parametrize("entries", [10, 150, 2**24])
def test_the_last_bit_of_a_similarity_does_not_matter(monkeypatch, kind, width, entries):
    # The product of two tokens can depend on their order and on the block they are in.
    monkeypatch.setattr(similarity, "BLOCK_ENTRIES", entries)
    for seed in range(3):
        for frames, size in ((1, 3), (1, 4), (1, 19), (3, 9)):
            video = draw(kind, frames, size, width, seed)
            for ratio in (0.3, 0.7, 0.95):
                result = compress(video, ScissorConfig(retention_ratio=ratio))
                assert result.num_kept == max(1, math.floor(ratio * frames * size))


@given(
    videos(),
    st.floats(-1, 1) | st.sampled_from([-1.0, 0.0, 0.9, 1.0]),
    st.floats(0, 1, exclude_min=True),
    st.sampled_from([None, 1, 3]),
)
def test_both_keep_what_tau_keeps_but_not_more_than_the_budget(video, tau, ratio, sample_size):
    by_tau = compress(video, ScissorConfig(tau=tau, sample_size=sample_size))
    both = compress(video, ScissorConfig(tau=tau, retention_ratio=ratio, sample_size=sample_size))
    target = max(1, math.floor(ratio * by_tau.num_input))
    assert both.num_kept == min(by_tau.num_kept, target)
    assert both.tau <= tau + ROUNDING
    assert_well_formed(both, video)
    if by_tau.num_kept <= target:
        assert_same_bytes(both, by_tau)


@pytest.mark.parametrize("kind", [gaussian, smooth])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_the_effective_tau_is_one_that_leads_there(kind, ratio, seed):
    video = draw(kind, 6, 36, 16, seed)
    result = compress(video, ScissorConfig(retention_ratio=ratio))
    by_tau = compress(video, ScissorConfig(tau=result.tau))
    assert abs(by_tau.num_kept / result.num_kept - 1) <= 0.1
    assert abs(by_tau.num_spatial / result.num_spatial - 1) <= 0.1


def test_the_effective_tau_of_equal_tokens_is_their_similarity():
    orthogonal = torch.eye(12).view(3, 4, 12)
    for count in (1, 4, 11):
        result = compress(orthogonal, ScissorConfig(retention_ratio=ratio_of(count, 12)))
        assert result.tau <= 0
    assert compress(torch.ones(3, 4, 5), ScissorConfig(retention_ratio=0.5)).tau == pytest.approx(1)


def test_a_single_token_meets_every_budget():
    for config in (ScissorConfig(retention_ratio=0.01), ScissorConfig(retention_ratio=0.01, tau=0.5)):
        result = compress(torch.ones(1, 1, 2), config)
        assert result.num_kept == 1
        assert torch.equal(result.tokens, torch.ones(1, 2))
