from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def video(tmp_path: Path) -> str:
    """A file that begins like an MP4."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0\0\0\x18ftypisom")
    return str(path)
