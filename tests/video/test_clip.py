from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tracemalloc

import pytest
import torch

from llava_scissor.errors import VideoError
from llava_scissor.video import VideoClip, read_video
from tests.video.clips import Recipe

BOTH = ("pyav", "decord")


@pytest.mark.parametrize("decoder", BOTH)
def test_fields(mp4, decoder):
    clip = read_video(str(mp4), 4, decoder)
    assert isinstance(clip, VideoClip)
    assert clip.frames.dtype == torch.uint8
    assert clip.frames.shape == (4, 64, 96, 3)
    assert clip.frames.is_contiguous()
    assert clip.indices == (0, 19, 39, 59)
    assert clip.timestamps_s == pytest.approx((0, 0.76, 1.56, 2.36))
    assert (clip.num_source_frames, clip.fps, clip.num_missing) == (60, pytest.approx(25), 0)
    assert clip.source == str(mp4)
    assert read_video(mp4.read_bytes(), 1, decoder).source.endswith("bytes in memory")


def test_a_clip_cannot_be_changed(mp4):
    with pytest.raises(dataclasses.FrozenInstanceError):
        read_video(mp4, 1).num_missing = 3


def test_decoders_agree(mp4):
    by_pyav, by_decord = read_video(mp4, 8, "pyav"), read_video(mp4, 8, "decord")
    assert by_pyav.indices == by_decord.indices
    assert (by_pyav.frames.int() - by_decord.frames.int()).abs().max() <= 1


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files through /proc")
@pytest.mark.parametrize("decoder", BOTH)
def test_files_are_closed_on_every_path(mp4, audio_only, tmp_path, decoder):
    def num_open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    cut = tmp_path / "cut.mp4"
    cut.write_bytes(mp4.read_bytes()[:1500])
    read_video(mp4, 3, decoder)
    before = num_open_files()
    for _ in range(3):
        read_video(mp4, 3, decoder)
        for bad in (cut, audio_only):
            with pytest.raises(VideoError, match="bytes, MP4 or MOV"):
                read_video(bad, 3, decoder)
    assert num_open_files() == before


def test_only_the_sampled_pictures_are_held(clips):
    path = clips(Recipe("large.mp4", num_frames=40, size=(480, 640)))
    read_video(path, 1)
    tracemalloc.start()
    clip = read_video(path, 4)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1.6 * clip.frames.numel()


def test_import_needs_no_decoder():
    code = "import sys, llava_scissor.video; print('av' in sys.modules, 'decord' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
