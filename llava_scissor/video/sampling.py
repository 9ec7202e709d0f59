"""Which frames of a video are looked at."""

from __future__ import annotations

import numpy as np

from llava_scissor.errors import InputError


def uniform_indices(num_source_frames: int, num_frames: int) -> tuple[int, ...]:
    """Spread `num_frames` frame numbers evenly over a video, first and last frame included.

    The number asked for is always honoured: a video with fewer frames gives each of them more than once.
    One frame asked for is the first one.

    Args:
        num_source_frames: Frames that the video has, at least 1.
        num_frames: Frames to look at (F), at least 1.

    Returns:
        F frame numbers in 0..num_source_frames - 1, ascending.

    Raises:
        InputError: One of the two numbers is below 1.

    Reference:
        The sampling of the original LLaVA-OneVision code: linspace(0, n - 1, F) cut to integers. Floating
        point is used on purpose: exact arithmetic differs by one frame for about 1 % of the pairs (n, F).
    """
    if num_source_frames < 1 or num_frames < 1:
        raise InputError(
            f"Cannot sample {num_frames} frames from {num_source_frames}: both numbers must be at least 1."
        )
    return tuple(np.linspace(0, num_source_frames - 1, num_frames).astype(np.int64).tolist())
