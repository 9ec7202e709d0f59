"""What keeps time: windows of the temporal step, and tokens at their places."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from llava_scissor.compression import CompressionResult, ScissorConfig, StreamingScissor, compress
from llava_scissor.compression.budget import meet_budget
from tests.compression.checks import assert_agrees, assert_same_bytes, assert_well_formed
from tests.compression.draws import KINDS, ROUNDING, draw, gaussian, partition, smooth, video_of, videos
from tests.reference import two_steps
from tests.reference.forest import kruskal_parts

WINDOWS = st.integers(1, 4)


def places_of(result: CompressionResult) -> list[int]:
    """The mean index of the tokens of each component, rounded half up, token by token."""
    members = [[i for i, c in enumerate(result.component.tolist()) if c == k] for k in range(result.num_kept)]
    return [(2 * sum(part) + len(part)) // (2 * len(part)) for part in members]


@given(videos(max_frames=6), st.floats(-1, 1), WINDOWS, st.booleans())
def test_tau_mode_is_what_the_oracle_finds(video, tau, window, keeps_places):
    outcome = two_steps.compress(video.numpy(), tau, temporal_window=window, in_order_of_place=keeps_places)
    assume(outcome.margin > ROUNDING)
    positions = "original" if keeps_places else "consecutive"
    result = compress(video, ScissorConfig(tau=tau, temporal_window=window, positions=positions))
    assert_agrees(result, outcome)
    assert result.positions is None or result.positions.tolist() == places_of(result)


@pytest.mark.parametrize("kind", KINDS)
def test_the_budget_is_met(kind):
    video = draw(kind, 7, 9, 8)
    for count in (1, 3, 12, 62, 63):  # fewer tokens than windows, too
        config = ScissorConfig(
            retention_ratio=(count + 0.5) / 63 if count < 63 else 1.0, preset="recommended"
        )
        result = compress(video, config.model_copy(update={"temporal_window": 2}))
        assert result.num_kept == count
        assert_well_formed(result, video)
        assert result.positions.tolist() == places_of(result)
        assert result.positions.tolist() == sorted(result.positions.tolist())


@pytest.mark.parametrize("target", [1, 4, 20, 60])
@pytest.mark.parametrize("window", [1, 2, 4])
def test_links_between_windows_are_the_last_to_be_merged_along(target, window):
    tokens = draw(gaussian, 6, 12, 8)
    steps = meet_budget(video_of(tokens, temporal_window=window), target)
    size = steps.spatial.components.count
    frame = [steps.spatial.components.labels.tolist().index(k) // 12 for k in range(size)]
    unit = torch.nn.functional.normalize(steps.spatial.means.double(), dim=1)
    weights = {
        (i, j): float(unit[i] @ unit[j]) if frame[i] // window == frame[j] // window else -1.0
        for i in range(size)
        for j in range(i + 1, size)
    }
    assert partition(steps.temporal.labels) == kruskal_parts(size, weights, target)


@given(videos(max_frames=6), st.floats(-0.99, 1), WINDOWS, st.none() | st.integers(1, 5))
def test_a_threshold_joins_nothing_across_windows(video, tau, window, sample_size):
    result = compress(video, ScissorConfig(tau=tau, temporal_window=window, sample_size=sample_size))
    assert torch.equal(result.frame_span[:, 0] // window, result.frame_span[:, 1] // window)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operating_point", [{"tau": 0.6}, {"retention_ratio": 0.2}])
def test_one_window_is_none_and_places_only_change_the_order(kind, operating_point):
    video = draw(kind, 4, 9, 8)
    plain = compress(video, ScissorConfig(**operating_point))
    assert plain.positions is None
    assert_same_bytes(compress(video, ScissorConfig(**operating_point, temporal_window=4)), plain)
    placed = compress(video, ScissorConfig(**operating_point, positions="original"))
    assert partition(placed.component) == partition(plain.component)
    # Sorted by the exact mean: tokens at equal places stay in the order of before.
    order = sorted(
        range(plain.num_kept), key=lambda k: float((plain.component == k).nonzero().double().mean())
    )
    if kind in (gaussian, smooth):  # elsewhere a token may be as near to two of them
        torch.testing.assert_close(placed.tokens, plain.tokens[order])


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_do_not_change_a_byte(kind):
    video = draw(kind, 4, 6, 8)
    for point in ({"tau": 0.5}, {"retention_ratio": 0.1}, {"retention_ratio": 0.1, "sample_size": 4}):
        config = ScissorConfig(preset="recommended", temporal_window=2, **point)
        blocked = config.model_copy(update={"block_size": 40})
        assert_same_bytes(compress(video, blocked), compress(video, config))


@pytest.mark.parametrize("window", [1, 3, None])
def test_a_stream_counts_places_from_its_first_frame(window):
    video, config = draw(smooth, 7, 9, 6), ScissorConfig(retention_ratio=0.3, preset="recommended")
    for max_tokens in (None, 8):
        stream = StreamingScissor(config, window, max_tokens)
        for frame in video:
            stream.push(frame)
        result = stream.finish()
        assert_well_formed(result, video)
        assert result.positions.tolist() == places_of(result) == sorted(result.positions.tolist())
    assert result.num_kept == 8
    whole = StreamingScissor(config, window=7)
    for frame in video:
        whole.push(frame)
    assert_same_bytes(whole.finish(), compress(video, config))


def test_time_is_kept_where_a_thing_moves_back_and_forth():
    """Two scenes that take turns: the temporal step joins their returns, windows and places keep them apart."""
    scenes = torch.eye(2)[torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])][:, None]
    assert compress(scenes, ScissorConfig(tau=0.9)).num_kept == 2
    result = compress(scenes, ScissorConfig(tau=0.9, temporal_window=4, positions="original"))
    assert result.tokens.tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]
    assert result.positions.tolist() == [1, 3, 5, 7]
    assert math.isclose(result.tau, 0.9)
