"""Every container and codec: burnt-in numbers are the reported ones, pixels are those of a full decode."""

from __future__ import annotations

import itertools

import av
import numpy as np
import pytest

from llava_scissor.video import read_video, uniform_indices
from tests.video.clips import Recipe, decode_all, orient, read_number, read_numbers, remux
from tests.video.conftest import write_sound

BOTH = ("pyav", "decord")
QUIET_X265 = {"x265-params": "log-level=none"}
ALT_REF = {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime"}
FORMATS = {  # name: (recipe, decoders that know it)
    "mp4": (Recipe("a.mp4"), BOTH),
    "mp4-long-gop": (Recipe("a.mp4", gop=250, max_b_frames=3), BOTH),
    "mp4-faststart": (Recipe("a.mp4", container_options={"movflags": "faststart"}), BOTH),
    "mp4-fragmented": (Recipe("a.mp4", container_options={"movflags": "frag_keyframe+empty_moov"}), BOTH),
    "mp4-gradual-refresh": (Recipe("a.mp4", options={"x264-params": "intra-refresh=1:keyint=20"}), BOTH),
    "mov": (Recipe("a.mov"), BOTH),
    "mkv": (Recipe("a.mkv"), BOTH),
    "webm-vp9": (Recipe("a.webm", "libvpx-vp9", options=ALT_REF), BOTH),
    "webm-vp8": (Recipe("a.webm", "libvpx", options=ALT_REF), BOTH),
    "avi-mpeg4": (Recipe("a.avi", "mpeg4", max_b_frames=2), BOTH),
    "avi-h264": (Recipe("a.avi"), BOTH),
    "hevc": (Recipe("a.mp4", "libx265", options=QUIET_X265), BOTH),
    "mpeg-ps": (Recipe("a.mpg", "mpeg2video", max_b_frames=2), BOTH),
    "wmv": (Recipe("a.wmv", "wmv2"), BOTH),
    "mjpeg": (Recipe("a.mov", "mjpeg", "yuvj420p"), BOTH),
    "alpha": (Recipe("a.mov", "qtrle", "argb"), BOTH),
    "gray": (Recipe("a.mkv", "ffv1", "gray"), BOTH),
    "10-bit": (Recipe("a.mkv", "ffv1", "yuv420p10le"), BOTH),
    "odd-size": (Recipe("a.mkv", "ffv1", "yuv420p", size=(65, 97)), BOTH),
    "mpeg-ts": (Recipe("a.ts"), ("pyav",)),
    "ts-open-gop": (Recipe("a.ts", options={"x264-params": "open-gop=1:keyint=20"}), ("pyav",)),
    "av1": (Recipe("a.mp4", "libsvtav1", options={"preset": "12", "crf": "5"}), ("pyav",)),
    "gif": (Recipe("a.gif", "gif", "rgb8"), ("pyav",)),
    "apng": (Recipe("a.apng", "apng", "rgb24"), ("pyav",)),
    "raw-h264": (Recipe("a.h264"), ("pyav",)),
    "y4m": (Recipe("a.y4m", "wrapped_avframe"), ("pyav",)),
}
CASES = [
    pytest.param(recipe, decoder, id=f"{name}-{decoder}")
    for name, (recipe, decoders) in FORMATS.items()
    for decoder in decoders
]


@pytest.fixture(autouse=True)
def quiet_av1_encoder(monkeypatch):
    monkeypatch.setenv("SVT_LOG", "0")


@pytest.mark.parametrize(("recipe", "decoder"), CASES)
@pytest.mark.parametrize("num_frames", [1, 7, 25, 70])
def test_frames_are_the_ones_that_are_reported(clips, recipe, decoder, num_frames):
    clip = read_video(clips(recipe), num_frames, decoder)
    assert clip.num_source_frames == 60
    assert clip.indices == uniform_indices(60, num_frames)
    assert read_numbers(clip.frames) == clip.indices
    assert clip.num_missing == 0
    assert clip.fps == pytest.approx(25, rel=1e-3)
    assert clip.timestamps_s == pytest.approx([index / 25 for index in clip.indices], abs=1e-3)


@pytest.mark.parametrize(("recipe", "decoder"), CASES)
def test_pixels_are_those_of_a_full_decode(clips, recipe, decoder):
    oracle = decode_all(clips(recipe))
    clip = read_video(clips(recipe), 13, decoder)
    difference = np.abs(clip.frames.numpy().astype(int) - np.stack([oracle[index] for index in clip.indices]))
    if decoder == "pyav":
        assert difference.max() == 0
    else:  # decord brings an older colour conversion along; a neighbouring frame differs by 10 and more
        assert difference.mean() < 1


@pytest.mark.parametrize("decoder", BOTH)
def test_bytes_give_the_same_clip_as_the_file(mp4, decoder):
    from_file, from_bytes = read_video(mp4, 9, decoder), read_video(mp4.read_bytes(), 9, decoder)
    assert (from_file.frames == from_bytes.frames).all()
    assert from_file.indices == from_bytes.indices
    assert from_file.timestamps_s == from_bytes.timestamps_s


@pytest.mark.parametrize("decoder", BOTH)
def test_variable_frame_rate_keeps_the_true_times(clips, decoder):
    times = list(itertools.accumulate([0, *([2, 1, 7, 40] * 10)[:29]]))
    path = clips(Recipe("vfr.mp4", num_frames=30, times=times, time_base_hz=100))
    clip = read_video(path, 11, decoder)
    assert read_numbers(clip.frames) == clip.indices == uniform_indices(30, 11)
    assert clip.timestamps_s == pytest.approx([times[index] / 100 for index in clip.indices], abs=1e-4)
    if decoder == "pyav":
        assert clip.fps == pytest.approx(29 / (times[-1] / 100))


@pytest.mark.parametrize("decoder", BOTH)
def test_times_count_from_the_first_frame(mp4, tmp_path, decoder):
    late = remux(mp4, tmp_path / "late.mkv", shift_ticks=12800 * 3)
    assert read_video(late, 4, decoder).timestamps_s == pytest.approx([0, 0.76, 1.56, 2.36], abs=2e-3)


def test_frames_cut_away_by_an_edit_list_are_not_counted(mp4, tmp_path):
    path = remux(mp4, tmp_path / "edited.mp4", shift_ticks=-5 * 512)
    clip = read_video(path, 8)
    assert clip.num_source_frames == 55
    assert read_numbers(clip.frames) == tuple(index + 5 for index in clip.indices)
    assert clip.timestamps_s[0] == 0


@pytest.mark.parametrize("decoder", BOTH)
@pytest.mark.parametrize("num_source_frames", [1, 2, 5])
def test_short_videos_repeat_frames(clips, decoder, num_source_frames):
    path = clips(Recipe(f"short{num_source_frames}.mp4", num_frames=num_source_frames))
    clip = read_video(path, 12, decoder)
    assert clip.frames.shape[0] == 12
    assert read_numbers(clip.frames) == clip.indices == uniform_indices(num_source_frames, 12)
    assert clip.num_missing == 0
    assert clip.num_source_frames == num_source_frames


QUARTER_TURNS = {
    "as stored": (1, 0, 0, 1),
    "right": (0, 1, -1, 0),  # clockwise, the usual portrait video of a phone
    "upside down": (-1, 0, 0, -1),
    "left": (0, -1, 1, 0),
}
MIRRORS = {
    "mirrored": (-1, 0, 0, 1),
    "flipped": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transversed": (0, -1, -1, 0),
}


def carry(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Carry each pixel to where the matrix puts it, one by one."""
    a, b, c, d = matrix
    height, width = picture.shape[:2]
    moved = {(b * x + d * y, a * x + c * y): picture[y, x] for y in range(height) for x in range(width)}
    top, left = min(y for y, _ in moved), min(x for _, x in moved)
    bottom, right = max(y for y, _ in moved), max(x for _, x in moved)
    return np.stack([np.stack([moved[y, x] for x in range(left, right + 1)]) for y in range(top, bottom + 1)])


@pytest.mark.parametrize(
    ("matrix", "decoder"),
    [
        pytest.param(matrix, decoder, id=f"{name}-{decoder}")
        for name, matrix in QUARTER_TURNS.items()
        for decoder in BOTH
    ]
    + [pytest.param(matrix, "pyav", id=f"{name}-pyav") for name, matrix in MIRRORS.items()],
)
def test_pictures_come_out_upright(mp4, tmp_path, matrix, decoder):
    stored = read_video(mp4, 3, decoder)
    upright = read_video(orient(mp4, tmp_path / "turned.mp4", matrix), 3, decoder)
    assert upright.indices == stored.indices
    for shown, picture in zip(upright.frames.numpy(), stored.frames.numpy(), strict=True):
        np.testing.assert_array_equal(shown, carry(picture, matrix))


def test_repeated_timestamps_are_told_apart_by_counting(clips):
    # A Matroska clock of one millisecond cannot tell frames apart that are 0.4 ms from each other.
    path = clips(Recipe("fast.mkv", num_frames=40, time_base_hz=2500, max_b_frames=0))
    with av.open(str(path)) as container:
        assert len({packet.pts for packet in container.demux(video=0)}) < 30
    clip = read_video(path, 13)
    assert clip.num_source_frames == 40
    assert read_numbers(clip.frames) == clip.indices == uniform_indices(40, 13)
    assert list(clip.timestamps_s) == sorted(clip.timestamps_s)


def test_a_change_of_size_midway_is_scaled_to_the_first_size(clips, tmp_path):
    small = clips(Recipe("small.h264", num_frames=10))
    large = clips(Recipe("large.h264", num_frames=10, size=(128, 192)))
    path = tmp_path / "joined.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    clip = read_video(path, 20)
    assert clip.num_source_frames == 20
    assert clip.frames.shape == (20, 64, 96, 3)
    assert read_number(clip.frames[3]) == 3


def test_sound_beside_the_pictures_is_ignored(tmp_path):
    path = tmp_path / "talking.mp4"
    plain = Recipe("plain.mp4", num_frames=20).write(tmp_path)
    with av.open(str(plain)) as reader, av.open(str(path), "w") as writer:
        stream = reader.streams.video[0]
        template = writer.add_stream_from_template(stream)
        write_sound(writer, num_chunks=12)
        for packet in reader.demux(stream):
            if packet.size:
                packet.stream = template
                writer.mux(packet)
    for decoder in BOTH:
        clip = read_video(path, 6, decoder)
        assert read_numbers(clip.frames) == clip.indices == uniform_indices(20, 6)


def test_file_names_are_taken_literally(mp4, tmp_path):
    path = tmp_path / "concat:50% %d né #1?.mp4"
    path.write_bytes(mp4.read_bytes())
    for source in (path, str(path)):
        assert read_video(source, 2).source == str(path)
