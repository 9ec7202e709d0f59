from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from llava_scissor.compression import Scissor, ScissorConfig, compress, compress_batch
from llava_scissor.compression.engines.tiled.similarity import draw_sample
from llava_scissor.errors import InputError
from tests.compression.checks import assert_agrees, assert_same_bytes, assert_well_formed
from tests.compression.draws import KINDS, ROUNDING, chain, draw, gaussian, smooth, videos, with_zeros, zeros
from tests.reference import two_steps

OPERATING_POINTS = [
    ScissorConfig(),
    ScissorConfig(tau=0.5),
    ScissorConfig(tau=-1.0),
    ScissorConfig(tau=1.0),
    ScissorConfig(retention_ratio=0.2),
    ScissorConfig(tau=0.8, retention_ratio=0.2),
    ScissorConfig(tau=0.5, epsilon=0.7),
    ScissorConfig(tau=0.5, sample_size=3),
    ScissorConfig(retention_ratio=0.2, epsilon=0.7),
    ScissorConfig(tau=0.8, retention_ratio=0.2, sample_size=3, seed=5),
    ScissorConfig(tau=0.5, preset="recommended", temporal_window=2),
    ScissorConfig(retention_ratio=0.2, preset="recommended", temporal_window=2, sample_size=5),
]


@given(videos(), st.floats(-1, 1))
def test_tau_mode_is_what_the_oracle_finds(video, tau):
    outcome = two_steps.compress(video.numpy(), tau)
    assume(outcome.margin > ROUNDING)
    result = compress(video, ScissorConfig(tau=tau))
    assert_agrees(result, outcome)
    assert_well_formed(result, video)
    assert result.tau == result.tau_spatial == tau


@pytest.mark.parametrize("kind", [gaussian, smooth, chain, with_zeros])
@pytest.mark.parametrize("tau", [-0.5, 0.3, 0.8, 0.97])
def test_larger_videos_are_what_the_oracle_finds(kind, tau):
    for seed in range(20):
        video = draw(kind, 4, 16, 5, seed)
        outcome = two_steps.compress(video.numpy(), tau)
        if outcome.margin > ROUNDING:
            assert_agrees(compress(video, ScissorConfig(tau=tau)), outcome)
            return
    pytest.fail("no video keeps its distance from the threshold")


@given(videos(max_size=10), st.floats(-1, 1), st.integers(1, 6), st.integers(0, 99))
def test_sampled_search_is_what_the_oracle_finds(video, tau, sample_size, seed):
    config = ScissorConfig(tau=tau, sample_size=sample_size, seed=seed)
    result, outcome = with_oracle(video, config, lambda size: sample_size)
    assume(outcome.margin > ROUNDING)
    assert_agrees(result, outcome)


@pytest.mark.parametrize("epsilon", [0.6, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_epsilon_is_what_the_oracle_finds(epsilon, seed):
    config = ScissorConfig(tau=0.8, epsilon=epsilon, seed=seed)
    video = draw(gaussian, 4, 12, 4, seed)
    result, outcome = with_oracle(video, config, lambda size: math.ceil(math.log(size) / epsilon**2))
    assert outcome.margin > ROUNDING
    assert_agrees(result, outcome)


def with_oracle(video, config, sample_size):
    """The result, and the oracle's with the same samples."""
    result = compress(video, config)

    def drawn(num_sets, size):
        sample = draw_sample(num_sets, size, sample_size(size), config.seed, torch.device("cpu"))
        return [None] * num_sets if sample is None else [set(row) for row in sample.tolist()]

    samples = drawn(*video.shape[:2]), drawn(1, result.num_spatial)[0]
    return result, two_steps.compress(video.numpy(), config.tau, samples)


@pytest.mark.parametrize("config", OPERATING_POINTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_operating_point_takes_every_kind_of_video(config, kind):
    video = draw(kind, 3, 9, 7)
    result = compress(video, config)
    assert_well_formed(result, video)
    assert_same_bytes(Scissor(config)(video), result)


def test_the_default_threshold():
    assert compress(draw(gaussian, 2, 3, 4)).tau == 0.9
    assert compress(draw(gaussian, 2, 3, 4), ScissorConfig(seed=3)).tau == 0.9


@pytest.mark.parametrize("config", OPERATING_POINTS)
def test_a_batch_is_its_videos(config):
    batch = [draw(kind, frames, 6, 5) for kind, frames in [(gaussian, 3), (smooth, 1), (zeros, 5)]]
    for result, video in zip(compress_batch(batch, config), batch, strict=True):
        assert_same_bytes(result, compress(video, config))


@given(st.lists(videos(max_size=4, max_width=3), max_size=5), st.sampled_from(OPERATING_POINTS))
def test_a_batch_of_any_shapes_is_its_videos(batch, config):
    for result, video in zip(compress_batch(batch, config), batch, strict=True):
        assert_same_bytes(result, compress(video, config))


def test_a_token_that_is_not_finite_is_named_in_its_own_video():
    batch = [torch.ones(3, 2, 4), torch.ones(2, 2, 4)]
    batch[1][1, 0, 0] = torch.nan
    with pytest.raises(InputError, match="at frame 1, token 0"):
        compress_batch(batch)


@pytest.mark.parametrize("config", OPERATING_POINTS)
def test_sums_beyond_float32_do_not_overflow(config):
    video = draw(gaussian, 4, 100, 6).clamp(-1, 1)
    huge = video * 2.0**127  # one more factor of two is infinite
    result, plain = compress(huge, config), compress(video, config)
    assert result.tokens.isfinite().all()
    assert torch.equal(result.component, plain.component)
    torch.testing.assert_close(result.tokens * 2.0**-127, plain.tokens)


def test_a_batch_may_be_empty():
    assert compress_batch([]) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_budget_of_everything_keeps_every_bit(kind, dtype):
    video = draw(kind, 2, 9, 5).to(dtype)
    result = compress(video, ScissorConfig(retention_ratio=1.0))
    assert torch.equal(result.tokens, video.flatten(0, 1))
    assert result.component.tolist() == result.assignment.tolist() == list(range(18))
    assert result.tau == result.tau_spatial == 1.0


def test_a_threshold_of_one_keeps_distinct_tokens():
    video = draw(gaussian, 3, 5, 8)
    result = compress(video, ScissorConfig(tau=1.0))
    assert torch.equal(result.tokens, video.flatten(0, 1))


def test_a_threshold_of_minus_one_merges_all_but_opposites():
    assert compress(draw(gaussian, 3, 5, 8), ScissorConfig(tau=-1.0)).num_kept == 1


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)]
)
@pytest.mark.parametrize("seed", range(3))
def test_other_dtypes_are_computed_in_float32(dtype, tolerance, seed):
    video = draw(gaussian, 3, 10, 4, seed).to(dtype)
    result = compress(video, ScissorConfig(tau=0.82))
    outcome = two_steps.compress(video.double().numpy(), 0.82)
    assert outcome.margin > ROUNDING
    # Only the last conversion rounds to the dtype: half a step of it.
    assert_agrees(result, outcome, tolerance)
    assert_well_formed(result, video)
    exact = compress(video.float(), ScissorConfig(tau=0.82))
    assert torch.equal(result.tokens, exact.tokens.to(dtype))


@pytest.mark.parametrize("exponent", [100, -100])
@pytest.mark.parametrize("config", OPERATING_POINTS)
def test_magnitude_does_not_matter(exponent, config):
    # Powers of two scale without rounding: 1e30 and 1e-30.
    video = draw(with_zeros, 3, 9, 7)
    result, scaled = compress(video, config), compress(video * 2.0**exponent, config)
    assert torch.equal(scaled.component, result.component)
    assert torch.equal(scaled.assignment, result.assignment)
    assert torch.equal(scaled.tokens, result.tokens * 2.0**exponent)


def test_float16_near_its_limit_does_not_overflow():
    video = (draw(gaussian, 4, 30, 6).sign() * 65504).to(torch.float16)
    result = compress(video, ScissorConfig(tau=0.5))
    assert result.num_kept < 100
    assert_well_formed(result, video)


def test_black_frames_keep_apart_and_attract_nobody():
    video = draw(smooth, 3, 6, 5)
    video[1] = 0
    result = compress(video, ScissorConfig(tau=0.0))
    black = result.assignment[6:12]
    assert torch.equal(black, result.component[6:12])
    assert black.unique().numel() == 6
    assert not set(black.tolist()) & set(result.assignment[[*range(6), *range(12, 18)]].tolist())
    assert (result.tokens[black] == 0).all()


@pytest.mark.parametrize("config", [ScissorConfig(tau=0.8), ScissorConfig(retention_ratio=0.3)])
def test_threads_do_not_disturb_each_other(config):
    videos = [draw(smooth, 6, 30, 40, seed).bfloat16() for seed in range(8)]
    expected = [compress(video, config) for video in videos]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(partial(compress, config=config), videos))
    for one, other in zip(found, expected, strict=True):
        assert_same_bytes(one, other)


def test_views_are_compressed_like_copies():
    video = draw(gaussian, 5, 4, 6).permute(1, 2, 0)
    for config in OPERATING_POINTS:
        assert_same_bytes(compress(video, config), compress(video.contiguous(), config))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("ratio", [None, 0.5, 1.0])
def test_what_is_not_finite_is_named(value, ratio):
    video = torch.ones(4, 6, 2)
    video[2, 5, 1] = value
    with pytest.raises(InputError, match="NaN or infinity at frame 2, token 5"):
        compress(video, ScissorConfig(retention_ratio=ratio))
