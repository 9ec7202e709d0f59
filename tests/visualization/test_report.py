from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from llava_scissor.compression import compress
from llava_scissor.compression.baselines.random import RandomTokens
from llava_scissor.config import ScissorConfig
from llava_scissor.video import VideoClip, read_video
from llava_scissor.visualization import write_report

FRAMES, SIDE = 10, 3


@pytest.fixture
def clip() -> VideoClip:
    """A portrait video, one frame longer than a sheet is wide."""
    pixels = torch.randint(0, 255, (FRAMES, 90, 51, 3), generator=torch.Generator().manual_seed(0))
    return VideoClip(
        frames=pixels.to(torch.uint8),
        indices=tuple(range(FRAMES)),
        timestamps_s=tuple(i / 2 for i in range(FRAMES)),
        num_source_frames=FRAMES,
        fps=2.0,
        num_missing=0,
        source="somewhere.mp4",
    )


@pytest.fixture
def tokens() -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(1, SIDE * SIDE, 8, generator=draw) + 0.3 * torch.randn(FRAMES, 9, 8, generator=draw)


def test_what_is_written(clip, tokens, tmp_path) -> None:
    result = compress(tokens, ScissorConfig(retention_ratio=0.2))
    stats = write_report(clip, result, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert {path.name for path in folder.iterdir()} == {
        "sheet.png",
        "components.mp4",
        "sizes.png",
        "stats.json",
    }
    assert json.loads((folder / "stats.json").read_text()) == stats
    assert stats["tokens"] == {"input": 90, "spatial": result.num_spatial, "kept": 18}
    assert sum(stats["first_seen_in_frame"]) == 18 == stats["in_one_frame"] + stats["in_several_frames"]
    assert stats["sizes"]["largest"] == int(result.sizes.max())
    assert stats["sizes"]["of_one_token"] == int((result.sizes == 1).sum())
    first = result.component[: SIDE * SIDE].unique()
    assert stats["components_in_frame"][0] == len(first)
    movie = read_video(folder / "components.mp4", FRAMES)
    assert movie.num_source_frames == FRAMES
    assert movie.frames.shape[1:3] == (256, 3 * 146)
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.width > 8 * 146
        assert sheet.height > 3 * 256


def test_dropped_tokens_are_no_component(clip, tokens, tmp_path) -> None:
    stats = write_report(clip, RandomTokens(retention_ratio=0.1)(tokens), tmp_path)
    assert stats["tau"] is None
    assert sum(stats["components_in_frame"]) == stats["tokens"]["kept"] == 9
    assert stats["sizes"] == {"largest": 1, "median": 1.0, "of_one_token": 9}


def test_the_histogram_has_a_bar_for_each_power_of_two(clip, tokens, tmp_path) -> None:
    write_report(clip, compress(tokens, ScissorConfig(retention_ratio=0.05)), tmp_path)
    with Image.open(tmp_path / "sizes.png") as opened:
        picture = np.asarray(opened)
    assert (picture == (70, 120, 200)).all(-1).any()
