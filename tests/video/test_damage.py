"""Damaged files: what decodes is used, what is missing is reported, and every error is a `VideoError`."""

from __future__ import annotations

import logging
import random

import pytest

from llava_scissor.errors import ScissorError, VideoError
from llava_scissor.video import read_video, uniform_indices
from tests.video.clips import Recipe, decode_all, packet_spans, read_number, read_numbers, wipe_packets

FASTSTART = Recipe("faststart.mp4", container_options={"movflags": "faststart"})


@pytest.fixture
def warnings_of_video(caplog):
    caplog.set_level(logging.WARNING, logger="llava_scissor.video")
    return lambda: [record.getMessage() for record in caplog.records]


def cut(source, target, share: float):
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


def test_the_nearest_decoded_frame_stands_in_for_a_missing_one(intra_mov, tmp_path, warnings_of_video):
    path = wipe_packets(intra_mov, tmp_path / "holes.mov", [8, 16, 20])
    clip = read_video(path, 8)
    assert uniform_indices(30, 8) == (0, 4, 8, 12, 16, 20, 24, 29)
    assert clip.indices == (0, 4, 4, 12, 12, 24, 24, 29)
    assert read_numbers(clip.frames) == clip.indices
    assert clip.timestamps_s == pytest.approx([index / 25 for index in clip.indices])
    assert clip.num_missing == 3
    assert clip.num_source_frames == 30
    (warning,) = warnings_of_video()
    assert "3 of 8 sampled frames cannot be decoded (8, 16, 20)" in warning


def test_a_missing_frame_that_is_asked_for_twice_counts_once(intra_mov, tmp_path):
    clip = read_video(wipe_packets(intra_mov, tmp_path / "holes.mov", [0, 10]), 90)
    assert clip.num_missing == 2
    assert len(clip.indices) == 90
    assert read_numbers(clip.frames) == clip.indices
    assert 0 not in clip.indices
    assert 10 not in clip.indices


def test_damage_beside_the_sampled_frames_is_not_reported(intra_mov, tmp_path, warnings_of_video):
    path = wipe_packets(intra_mov, tmp_path / "holes.mov", [1, 2, 3])
    clip = read_video(path, 4)
    assert read_numbers(clip.frames) == clip.indices == uniform_indices(30, 4)
    assert clip.num_missing == 0
    assert warnings_of_video() == []


def test_a_file_cut_off_after_its_index_gives_the_frames_that_are_left(clips, tmp_path, warnings_of_video):
    path = cut(clips(FASTSTART), tmp_path / "cut.mp4", 0.6)
    clip = read_video(path, 8)
    assert 5 < clip.num_source_frames < 60
    assert clip.indices[0] == 0
    assert read_numbers(clip.frames[:-1]) == clip.indices[:-1]
    assert any(f"announces 60 frames, the {clip.num_source_frames}" in text for text in warnings_of_video())


@pytest.mark.parametrize(
    "recipe",
    [Recipe("a.mkv"), Recipe("a.webm", "libvpx-vp9"), Recipe("a.gif", "gif", "rgb8"), Recipe("a.ts")],
    ids=lambda recipe: recipe.file_name,
)
def test_streamable_files_can_end_anywhere(clips, tmp_path, recipe):
    clip = read_video(cut(clips(recipe), tmp_path / recipe.file_name, 0.7), 8)
    assert 20 < clip.num_source_frames < 60
    assert read_numbers(clip.frames[:-1]) == clip.indices[:-1]


def test_reading_that_fails_before_the_end_is_reported(clips, tmp_path, warnings_of_video):
    apng = clips(Recipe("a.apng", "apng", "rgb24"))
    clip = read_video(cut(apng, tmp_path / "cut.apng", 0.85), 4)
    assert read_number(clip.frames[0]) == 0
    assert any("reading stopped before the end of the file" in text for text in warnings_of_video())


def test_a_damaged_key_frame_leaves_the_other_groups_alone(mp4, tmp_path):
    clip = read_video(wipe_packets(mp4, tmp_path / "holes.mp4", [24]), 60)
    sound = [index for index in range(60) if not 20 <= index < 36]
    assert [clip.indices[index] for index in sound] == sound
    oracle = decode_all(mp4)
    for index in sound:
        assert (clip.frames[index].numpy() == oracle[index]).all()


def test_frames_without_times_are_counted_as_they_come_out(clips, tmp_path):
    avi = clips(Recipe("h264.avi", gop=250))  # stores no times that could name the lost frames
    clip = read_video(wipe_packets(avi, tmp_path / "holes.avi", range(30, 60)), 8)
    assert 20 < clip.num_source_frames <= 30
    assert clip.indices == uniform_indices(clip.num_source_frames, 8)
    assert clip.num_missing == 0


def test_a_packet_that_opens_another_stream_is_no_obstacle(clips, tmp_path):
    content = bytearray(clips(Recipe("a.ts")).read_bytes())
    last_picture = content.rindex(b"\x47\x41\x00")
    content[last_picture + 1] ^= 4  # another stream number
    path = tmp_path / "second.ts"
    path.write_bytes(content)
    clip = read_video(path, 5)
    assert read_numbers(clip.frames[:-1]) == clip.indices[:-1]


def test_nothing_decodable_is_an_error(intra_mov, tmp_path):
    path = wipe_packets(intra_mov, tmp_path / "blank.mov", range(30))
    with pytest.raises(VideoError, match="is damaged: none of the 4 frames asked for can be decoded"):
        read_video(path, 4)


def test_decord_gives_a_damaged_file_up(clips, mp4, intra_mov, tmp_path):
    damaged = wipe_packets(intra_mov, tmp_path / "holes.mov", [8, 16, 20])
    with pytest.raises(VideoError, match=r"near frame \d+ with decord\. Check .* or use decoder='pyav'"):
        read_video(damaged, 30, "decord")
    open_gop = clips(Recipe("hevc.mp4", "libx265", options={"x265-params": "log-level=none"}))
    holes = wipe_packets(open_gop, tmp_path / "holes.mp4", range(30, 60))
    with pytest.raises(VideoError, match="cannot be decoded completely with decord"):
        read_video(holes, 8, "decord")


def spoil(content: bytes, random_source: random.Random) -> bytes:
    spoilt = bytearray(content)
    start = random_source.randrange(len(spoilt))
    match random_source.choice(["cut", "flip", "zero", "insert", "head"]):
        case "cut":
            return bytes(spoilt[: start + 1])
        case "flip":
            for _ in range(random_source.choice([1, 20, 200])):
                spoilt[random_source.randrange(len(spoilt))] ^= 1 << random_source.randrange(8)
        case "zero":
            spoilt[start : start + 300] = bytes(len(spoilt[start : start + 300]))
        case "insert":
            spoilt[start:start] = random_source.randbytes(50)
        case "head":
            for _ in range(10):
                spoilt[random_source.randrange(400)] = random_source.randrange(256)
    return bytes(spoilt)


@pytest.mark.parametrize(
    "recipe",
    [FASTSTART, Recipe("a.mkv"), Recipe("a.ts"), Recipe("a.avi", "mpeg4"), Recipe("a.gif", "gif", "rgb8")],
    ids=lambda recipe: recipe.file_name,
)
def test_spoilt_files_give_a_whole_clip_or_a_video_error(clips, recipe):
    content = clips(recipe).read_bytes()
    num_clips = 0
    for seed in range(25):
        try:
            clip = read_video(spoil(content, random.Random(seed)), 6)
        except ScissorError as error:
            assert isinstance(error, VideoError)  # noqa: PT017
            continue
        num_clips += 1
        assert clip.frames.shape[0] == len(clip.indices) == len(clip.timestamps_s) == 6
        assert 0 <= min(clip.indices) <= max(clip.indices) < clip.num_source_frames
        assert 0 <= clip.num_missing < 6
    assert num_clips > 0


def test_spans_are_those_of_the_pictures(intra_mov):
    content = intra_mov.read_bytes()
    assert all(content[position : position + 2] == b"\xff\xd8" for position, _ in packet_spans(intra_mov))
