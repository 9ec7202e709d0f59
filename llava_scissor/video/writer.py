"""Frames to a video file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8


def write_video(frames: UInt8[np.ndarray, "f h w 3"], path: Path, fps: int | float) -> None:
    """Write RGB frames as H.264 in an MP4 file.

    Args:
        frames: pictures of even height and width.
        path: of the file; one that is there is replaced.
        fps: frames per second.
    """
    import av

    height, width = frames.shape[1:3]
    with av.open(str(path), "w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for pixels in frames:
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"))
            )
        container.mux(stream.encode(None))
