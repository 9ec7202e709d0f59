from __future__ import annotations

import numpy as np

from llava_scissor.video import read_video
from llava_scissor.video.writer import write_video


def test_what_is_written_can_be_read(tmp_path) -> None:
    levels = np.arange(40, 240, 40, dtype=np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (5, 32, 48, 3))
    write_video(frames, tmp_path / "clip.mp4", 2.5)
    clip = read_video(tmp_path / "clip.mp4", 5)
    assert clip.frames.shape == (5, 32, 48, 3)
    assert clip.fps == 2.5
    assert clip.timestamps_s == (0.0, 0.4, 0.8, 1.2, 1.6)
    assert np.abs(clip.frames.float().mean((1, 2, 3)).numpy() - levels).max() < 4
