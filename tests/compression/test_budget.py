from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.bench.features import GENERATORS
from llava_scissor.compression import ScissorConfig, budget, compress
from llava_scissor.compression.budget import TUNING, estimate_tau, meet_budget
from llava_scissor.compression.engines.tiled import screening
from llava_scissor.compression.steps import Video
from tests.compression.checks import assert_same_bytes, assert_well_formed
from tests.compression.draws import (
    KINDS,
    constant,
    draw,
    duplicates,
    gaussian,
    partition,
    ratio_of,
    similarity,
    smooth,
    video_of,
    videos,
)
from tests.reference.forest import kruskal_parts

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
def test_the_last_bit_of_a_product_does_not_matter(kind, entries):
    # The product of two tokens can depend on their order and on the block they are in.
    for width, seed in ((100, 0), (257, 1), (257, 2)):
        for frames, size in ((1, 4), (1, 9), (3, 5)):
            video = draw(kind, frames, size, width, seed)
            result = compress(video, ScissorConfig(retention_ratio=0.7, block_size=entries))
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
    assert both.tau <= tau
    assert_well_formed(both, video)
    if by_tau.num_kept <= target:
        assert_same_bytes(both, by_tau)


@pytest.mark.parametrize("kind", [gaussian, smooth])
@pytest.mark.parametrize("target", [1, 5, 20, 60, 71])
@pytest.mark.parametrize("limit", [None, 0.9])
def test_the_representatives_are_joined_along_their_strongest_edges(kind, target, limit):
    video = video_of(draw(kind, 6, 12, 8))
    steps = meet_budget(video, target, limit)
    spatial = video.spatial_step(steps.spatial.tau)
    assert torch.equal(steps.spatial.components.labels, spatial.components.labels)
    size = spatial.components.count
    u, v = torch.triu_indices(size, size, 1)
    values = similarity(spatial.vertices, u, v).tolist()
    weights = dict(zip(zip(u.tolist(), v.tolist(), strict=True), values, strict=True))
    assert partition(steps.temporal.labels) == kruskal_parts(size, weights, steps.temporal.count)
    if limit is None:
        assert steps.temporal.count == target
    else:
        assert max(steps.tau, steps.spatial.tau) <= limit
        assert steps.temporal.count == min(target, video.two_steps(limit).temporal.count)


@pytest.mark.parametrize("kind", [gaussian, smooth])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.8])
def test_the_temporal_threshold_is_where_the_last_two_are_joined(kind, ratio):
    video = video_of(draw(kind, 6, 36, 16))
    target = int(ratio * video.num_tokens)
    steps = meet_budget(video, target)
    just_below = np.nextafter(steps.tau, -1)
    assert video.engine.components(steps.spatial.vertices, steps.tau).count > target
    assert video.engine.components(steps.spatial.vertices, just_below).count <= target


@pytest.mark.parametrize("features", ["made-up", "smooth", "chains"])
@pytest.mark.parametrize("ratio", [0.5, 0.1, 0.02])
@pytest.mark.parametrize("frames", [8, 24])
def test_one_pass_or_two_end_near_the_threshold_that_both_steps_share(monkeypatch, features, ratio, frames):
    tokens = GENERATORS[features](frames, 64, 64, torch.float32, torch.device("cpu"), 1)
    video, passes = video_of(tokens), []
    spatial_step = Video.spatial_step
    monkeypatch.setattr(
        Video, "spatial_step", lambda self, tau: passes.append(tau) or spatial_step(self, tau)
    )
    target = int(ratio * video.num_tokens)
    steps = meet_budget(video, target)
    assert len(passes) <= 2 or steps.spatial.tau > passes[0]
    shared = shared_tau(video, target)
    assert steps.temporal.count == target
    assert abs(steps.tau - shared) < max(0.03, 0.15 * (1 - shared))


def shared_tau(video, target):
    """The threshold of both steps that leaves about as many tokens, by bisection."""
    low, high = -1.0, 1.0
    for _ in range(14):
        tau = (low + high) / 2
        low, high = (tau, high) if video.two_steps(tau).temporal.count < target else (low, tau)
    return high


def test_a_second_pass_runs_where_the_thresholds_are_far_apart(monkeypatch):
    tokens = GENERATORS["smooth"](8, 64, 64, torch.float32, torch.device("cpu"), 2)
    video = video_of(tokens)
    right = estimate_tau(video, 50)
    monkeypatch.setattr(budget, "estimate_tau", lambda video, target: 0.999)
    steps = meet_budget(video, 50)
    assert 0.999 - steps.tau > TUNING.below
    assert abs(steps.spatial.tau - right) < abs(0.999 - right) / 2
    assert steps.temporal.count == 50


@pytest.mark.parametrize("guess", [-0.9, 0.0, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_estimate_costs_no_token(monkeypatch, guess, kind):
    monkeypatch.setattr(budget, "estimate_tau", lambda video, target: guess)
    tokens = draw(kind, 4, 25, 8)
    for target in (1, 4, 30, 99):
        result = compress(tokens, ScissorConfig(retention_ratio=ratio_of(target, 100)))
        assert result.num_kept == target
        assert_well_formed(result, tokens)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (2, 1, 3), (3, 300, 3)])
def test_videos_of_every_shape_have_an_estimate(shape):
    video = video_of(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    for target in (1, max(1, video.num_tokens // 2), video.num_tokens):
        assert -1 <= estimate_tau(video, target) <= 1
        assert meet_budget(video, target).temporal.count == target


@pytest.mark.parametrize("width", [5, 6, 3584])
@pytest.mark.parametrize("ratio", [0.02, 0.3, 0.9])
def test_frames_that_do_not_change_have_a_budget(width, ratio):
    # Rounded to 8 bits, the product of a vector with itself can be above 1.
    still = draw(gaussian, 1, 20, width)[0].expand(6, 20, width).contiguous()
    for tokens in (still, torch.ones(6, 20, width)):
        assert estimate_tau(video_of(tokens), int(ratio * 120)) <= 1
        assert compress(tokens, ScissorConfig(retention_ratio=ratio)).num_kept == int(ratio * 120)


@given(videos())
def test_the_estimate_is_the_same_in_every_number_format(tokens):
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(screening, "fast_dtype", lambda device, dtype=dtype: dtype)
            video = video_of(tokens)
            found.append([estimate_tau(video, target) for target in (1, 2, video.num_tokens)])
    assert found[0] == found[1]


def test_where_no_threshold_comes_close_the_spatial_step_leaves_enough():
    orthogonal = torch.eye(12).view(3, 4, 12)  # 12 tokens at tau 0, one below
    for count in (2, 4, 9):
        result = compress(orthogonal, ScissorConfig(retention_ratio=ratio_of(count, 12)))
        assert result.tau == 0
        assert result.num_kept == count
        assert result.num_spatial >= count
    result = compress(torch.ones(3, 4, 5), ScissorConfig(retention_ratio=0.5))
    assert result.tau == result.tau_spatial == 1


def test_a_single_token_meets_every_budget():
    for config in (ScissorConfig(retention_ratio=0.01), ScissorConfig(retention_ratio=0.01, tau=0.5)):
        result = compress(torch.ones(1, 1, 2), config)
        assert result.num_kept == 1
        assert torch.equal(result.tokens, torch.ones(1, 2))
