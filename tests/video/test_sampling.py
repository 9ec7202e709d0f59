from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.errors import InputError
from llava_scissor.video import uniform_indices

LENGTHS = st.integers(1, 100_000)
COUNTS = st.integers(1, 300)


def naive_indices(num_source_frames: int, num_frames: int) -> list[int]:
    """Walk from the first to the last frame in equal floating point steps and cut each stop to an integer."""
    if num_frames == 1:
        return [0]
    step = (num_source_frames - 1) / (num_frames - 1)
    return [int(step * number) for number in range(num_frames - 1)] + [num_source_frames - 1]


@given(LENGTHS, COUNTS)
def test_equals_the_naive_formula(num_source_frames, num_frames):
    assert list(uniform_indices(num_source_frames, num_frames)) == naive_indices(
        num_source_frames, num_frames
    )


@given(LENGTHS, COUNTS)
def test_is_ascending_inside_the_video_and_spans_it(num_source_frames, num_frames):
    indices = uniform_indices(num_source_frames, num_frames)
    assert len(indices) == num_frames
    assert list(indices) == sorted(indices)
    assert indices[0] == 0
    assert indices[-1] == (num_source_frames - 1 if num_frames > 1 else 0)


@given(st.integers(1, 50))
def test_all_frames_once_when_as_many_are_asked_for(num_source_frames):
    assert uniform_indices(num_source_frames, num_source_frames) == tuple(range(num_source_frames))


@given(st.integers(1, 40), st.integers(0, 200))
def test_every_frame_is_repeated_when_more_are_asked_for(num_source_frames, num_more):
    indices = uniform_indices(num_source_frames, num_source_frames + num_more)
    assert set(indices) == set(range(num_source_frames)) or num_source_frames == 1


def test_known_values():
    assert uniform_indices(524, 8) == (0, 74, 149, 224, 298, 373, 448, 523)
    assert uniform_indices(3, 7) == (0, 0, 0, 1, 1, 1, 2)
    assert all(isinstance(index, int) for index in uniform_indices(10, 3))


@pytest.mark.parametrize(("num_source_frames", "num_frames"), [(0, 8), (8, 0), (-3, 2)])
def test_refuses_numbers_below_one(num_source_frames, num_frames):
    with pytest.raises(InputError, match="both numbers must be at least 1"):
        uniform_indices(num_source_frames, num_frames)
