from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.compression import ScissorConfig, compress, similarity
from llava_scissor.compression.components import connected_components
from llava_scissor.compression.operating_point import meet_budget
from llava_scissor.compression.similarity import directions
from llava_scissor.compression.steps import Video
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
@pytest.mark.parametrize("search", [{}, {"sample_size": 1}, {"epsilon": 0.8}])
def test_every_number_of_tokens_can_be_asked_for(kind, search):
    video = draw(kind, 3, 4, 4)
    counts = [
        compress(video, ScissorConfig(retention_ratio=ratio_of(count, 12), **search)).num_kept
        for count in range(1, 13)
    ]
    assert counts == list(range(1, 13))


@given(videos(max_size=9, max_width=40), st.floats(0, 1, exclude_min=True), st.integers(1, 10))
def test_the_budget_is_met_by_a_sampled_search(video, ratio, sample_size):
    result = compress(video, ScissorConfig(retention_ratio=ratio, sample_size=sample_size))
    assert result.num_kept == max(1, math.floor(ratio * result.num_input))
    assert_well_formed(result, video)


@pytest.mark.parametrize("kind", [constant, duplicates, gaussian])
@pytest.mark.parametrize("entries", [20, 2**24])
def test_the_last_bit_of_a_similarity_does_not_matter(monkeypatch, kind, entries):
    # The product of two tokens can depend on their order and on the block they are in.
    monkeypatch.setattr(similarity, "BLOCK_ENTRIES", entries)
    for width, seed in ((100, 0), (257, 1), (257, 2)):
        for frames, size in ((1, 4), (1, 9), (3, 5)):
            video = draw(kind, frames, size, width, seed)
            result = compress(video, ScissorConfig(retention_ratio=0.7))
            assert result.num_kept == math.floor(0.7 * frames * size)


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


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("seed", range(2))
def test_the_effective_tau_is_one_that_leads_there(ratio, seed):
    video = draw(gaussian, 6, 36, 16, seed)
    result = compress(video, ScissorConfig(retention_ratio=ratio))
    by_tau = compress(video, ScissorConfig(tau=result.tau))
    assert by_tau.num_kept == pytest.approx(result.num_kept, rel=0.1)
    assert by_tau.num_spatial == pytest.approx(result.num_spatial, rel=0.1)


@pytest.mark.parametrize("kind", [gaussian, smooth])
@pytest.mark.parametrize("target", [1, 5, 20, 60, 71])
@pytest.mark.parametrize("limit", [None, 0.999])
def test_the_temporal_step_is_that_of_the_effective_tau(kind, target, limit):
    tokens = draw(kind, 6, 12, 8)
    video = Video(tokens, directions(tokens), ScissorConfig())
    steps = meet_budget(video, target, limit)
    # An edge whose weight is the threshold may come out a bit stronger from its other end.
    again = connected_components(steps.spatial.sets, steps.tau + 3e-7)
    assert torch.equal(steps.temporal.labels, again.labels)
    assert steps.temporal.count == again.count
    if limit is None:
        assert again.count == target
    else:
        assert again.count == min(target, video.two_steps(limit).temporal.count)
        assert steps.tau <= limit


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
