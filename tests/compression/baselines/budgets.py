"""Budgets at which an even share changes its form."""

from __future__ import annotations

import pytest

SIZE = 9


def counts(frames: int) -> list[int]:
    edges = {1, frames - 1, frames, frames + 1, SIZE - 1, SIZE, SIZE + 1, frames * SIZE - 1, frames * SIZE}
    return sorted(count for count in edges if 1 <= count <= frames * SIZE)


COUNTS = [
    pytest.param(frames, count, id=f"{count} of {frames} frames")
    for frames in (1, 2, 3, 5, 7)
    for count in counts(frames)
]
