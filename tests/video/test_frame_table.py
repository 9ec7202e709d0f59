from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.video.frame_table import FrameTable, Packet


def table(*entries: str) -> FrameTable:
    """Build a table from entries such as `K0` (key frame, time 0), `4` (time 4), `h2` (hidden), `?`."""
    packets = []
    for entry in entries:
        time = entry.lstrip("Kh")
        packets.append(Packet(None if time == "?" else int(time), "K" in entry, "h" not in entry))
    return FrameTable(packets)


def needed(frame_table: FrameTable, *indices: int, run_up: int = 0) -> list[int]:
    return np.flatnonzero(frame_table.packets_for(indices, run_up)).tolist()


def test_frames_are_numbered_in_the_order_of_their_times():
    frames = table("K0", "30", "10", "20", "K40")
    assert frames.ticks == [0, 10, 20, 30, 40]
    assert [frames.index_of(pts, count=99) for pts in (0, 30, 10, 20, 40)] == [0, 3, 1, 2, 4]
    assert frames.index_of(15, count=99) is None


def test_decoding_starts_at_the_key_frame_and_ends_with_the_frame():
    frames = table("K0", "1", "2", "K3", "4", "5")
    assert needed(frames, 1) == [0, 1]
    assert needed(frames, 4) == [3, 4]
    assert needed(frames, 0, 5) == [0, 3, 4, 5]
    assert needed(frames, 4, run_up=1) == [0, 1, 2, 3, 4]
    assert needed(frames, 1, run_up=1) == [0, 1]


def test_a_frame_shown_before_its_key_frame_needs_the_group_before():
    open_gop = table("K0", "1", "K4", "2", "3", "5")
    assert needed(open_gop, 2) == [0, 1, 2, 3]
    assert needed(open_gop, 5) == [2, 3, 4, 5]


def test_frames_before_the_first_key_frame_start_with_the_file():
    assert needed(table("0", "1", "K2", "3"), 1) == [0, 1]


def test_hidden_packets_are_no_frames_but_are_decoded():
    frames = table("Kh-2", "h-1", "0", "1")
    assert frames.ticks == [0, 1]
    assert needed(frames, 0) == [0, 1, 2]
    assert needed(table("Kh?", "0", "1"), 1) == [0, 1, 2]


def test_missing_and_repeated_times_mean_counting():
    for frames in (table("K?", "?", "?"), table("K0", "1", "1")):
        assert frames.ticks is None
        assert frames.index_of(7, count=2) == 2
        assert needed(frames, 0) == [0, 1, 2]


def test_closed_groups():
    assert table("K0", "2", "1", "K3", "4").has_closed_groups
    assert not table("K0", "1", "K4", "2", "3", "5").has_closed_groups
    assert not table("Kh0", "1", "2").has_closed_groups
    assert not table("K?", "?").has_closed_groups


def test_no_packets_are_no_frames():
    assert table().ticks == []
    assert table("Kh0").ticks == []


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.randoms(use_true_random=False), st.data())
def test_each_frame_comes_with_the_nearest_usable_key_frame(keys, random, data):
    times = random.sample(range(100), len(keys))
    frames = FrameTable([Packet(time, is_key, True) for time, is_key in zip(times, keys, strict=True)])
    index = data.draw(st.integers(0, len(keys) - 1))
    last = times.index(sorted(times)[index])
    usable = [number for number in range(last + 1) if keys[number] and times[number] <= times[last]]
    fallback = next((number for number in range(last + 1) if keys[number]), 0)
    start = usable[-1] if usable else fallback
    assert needed(frames, index) == list(range(start, last + 1))
