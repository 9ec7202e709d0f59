from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.compression import ScissorConfig, StreamingScissor, compress
from llava_scissor.compression.streaming import StreamState
from llava_scissor.errors import ConfigError, InputError
from tests.compression.checks import assert_same_bytes, assert_well_formed
from tests.compression.draws import KINDS, draw, gaussian, smooth, videos

CONFIGS = [
    ScissorConfig(tau=0.7),
    ScissorConfig(retention_ratio=0.3),
    ScissorConfig(tau=0.8, retention_ratio=0.2, sample_size=3),
]


def streamed(video, config, **limits):
    stream = StreamingScissor(config, **limits)
    states = [stream.push(frame) for frame in video]
    return stream.finish(), states


@given(videos(), st.sampled_from(CONFIGS), st.none() | st.integers(4, 9))
def test_a_window_over_everything_is_the_batch(video, config, window):
    result, _ = streamed(video, config, window=window)
    assert_same_bytes(result, compress(video, config))


@given(videos(max_frames=6), st.sampled_from(CONFIGS), st.integers(1, 4))
def test_each_window_is_a_video_of_its_own(video, config, window):
    result, states = streamed(video, config, window=window)
    parts = [compress(part, config) for part in video.split(window)]
    assert torch.equal(result.tokens, torch.cat([part.tokens for part in parts]))
    assert result.num_spatial == sum(part.num_spatial for part in parts)
    assert result.tau == min(part.tau for part in parts)
    first = 0
    for part, component, assignment in zip(
        parts,
        result.component.split(window * video.shape[1]),
        result.assignment.split(window * video.shape[1]),
        strict=True,
    ):
        assert torch.equal(component, part.component + first)
        assert torch.equal(assignment, part.assignment + first)
        first += part.num_kept
    assert_well_formed(result, video)
    full = len(video) // window
    waiting = len(video) % window
    assert states[-1] == StreamState(len(video), waiting, sum(part.num_kept for part in parts[:full]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_tokens", [1, 7, 20])
@pytest.mark.parametrize("window", [1, 3, None])
def test_the_whole_stream_keeps_to_its_limit(kind, max_tokens, window):
    video = draw(kind, 8, 9, 6)
    result, states = streamed(video, ScissorConfig(tau=0.9), window=window, max_tokens=max_tokens)
    assert result.num_kept <= max_tokens
    assert all(state.num_kept <= max_tokens for state in states)
    assert all(state.num_waiting < (window or 9) for state in states)
    assert_well_formed(result, video)
    low, high = video.flatten(0, 1).amin(0), video.flatten(0, 1).amax(0)
    assert (result.tokens >= low - 1e-5).all()
    assert (result.tokens <= high + 1e-5).all()


def test_tokens_that_are_merged_weigh_what_they_stand_for():
    video = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 2.0]], [[1.0, 0.1], [-1.0, 0.0]]])
    result, _ = streamed(video, ScissorConfig(tau=0.9999), window=1, max_tokens=3)
    # The first frame leaves (1, 0), joined by two tokens; the last (1, 0.1), joined by one: weights 3 and 2.
    torch.testing.assert_close(result.tokens[0], torch.tensor([1.0, 0.04]))
    assert result.component.tolist() == [0, 0, 1, 1, 0, 2]
    assert result.frame_span.tolist() == [[0, 2], [1, 1], [2, 2]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_large_tokens_are_merged_without_overflow(dtype):
    video = torch.full((5, 4, 3), float(torch.finfo(dtype).max) / 2, dtype=dtype)
    video[2:, :, 0] *= -1
    result, _ = streamed(video, ScissorConfig(tau=0.9), window=1, max_tokens=1)
    assert result.tokens.isfinite().all()
    assert result.tokens.dtype == dtype


def test_a_stream_keeps_copies_of_its_frames():
    frame, stream = draw(gaussian, 1, 5, 4)[0], StreamingScissor(ScissorConfig(tau=0.5))
    expected = compress(torch.stack([frame, 2 * frame]), ScissorConfig(tau=0.5))
    stream.push(frame)
    stream.push(frame.mul_(2))
    assert torch.equal(stream.finish().tokens, expected.tokens)


@pytest.mark.parametrize("limit", ["window", "max_tokens"])
def test_limits_are_at_least_one(limit):
    with pytest.raises(ConfigError, match=f"{limit} must be at least 1, got 0"):
        StreamingScissor(**{limit: 0})


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (torch.ones(2, 3, 4), "frame 1 must be a non-empty floating tensor"),
        (torch.ones(2, 3, dtype=torch.int64), "frame 1 must be a non-empty floating tensor"),
        (torch.ones(3, 4), r"frame 1 must be like the frames before it, \(2, 3\) of torch.float32 on cpu"),
        (torch.ones(2, 3, dtype=torch.float64), "got .* torch.float64"),
        (torch.tensor([[1.0, 1, 1], [torch.nan, 1, 1]]), "NaN or infinity at frame 1, token 1"),
    ],
)
@pytest.mark.parametrize("window", [1, 5])
def test_a_frame_unlike_the_others_is_refused(unchecked_shapes, frame, message, window):
    stream = StreamingScissor(window=window)
    stream.push(torch.ones(2, 3))
    with pytest.raises(InputError, match=message):
        stream.push(frame)
    stream.push(torch.ones(2, 3))
    assert stream.finish().num_input == 4


def test_a_stream_ends_once():
    stream = StreamingScissor()
    with pytest.raises(InputError, match="the stream has no frames"):
        stream.finish()
    stream.push(draw(smooth, 1, 4, 3)[0])
    stream.finish()
    with pytest.raises(InputError, match="the stream is finished already"):
        stream.finish()
    with pytest.raises(InputError, match="a finished stream takes no more frames"):
        stream.push(torch.ones(4, 3))
