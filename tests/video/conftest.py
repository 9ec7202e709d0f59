from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from tests.video.clips import Recipe


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Write a clip once per session: `clips(Recipe(...))` is its path."""
    written: dict[str, Path] = {}

    def write(recipe: Recipe) -> Path:
        key = repr(recipe)
        if key not in written:
            written[key] = recipe.write(tmp_path_factory.mktemp("clip"))
        return written[key]

    return write


@pytest.fixture(scope="session")
def mp4(clips) -> Path:
    """Sixty frames of H.264 with B-frames and a key frame every twelve frames; the index is at the end."""
    return clips(Recipe("plain.mp4"))


@pytest.fixture(scope="session")
def intra_mov(clips) -> Path:
    """Thirty frames that can each be decoded, and damaged, alone."""
    return clips(Recipe("intra.mov", "mjpeg", "yuvj420p", num_frames=30))


def write_sound(container, num_chunks: int = 20, codec: str = "aac", before_sound=()) -> None:
    stream = container.add_stream(codec, rate=16000)
    container.mux(list(before_sound))
    for number in range(num_chunks):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16000, 1024 * number
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def audio_only(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "sound.mp4"
    with av.open(str(path), "w") as container:
        write_sound(container)
    return path
