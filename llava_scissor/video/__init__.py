"""Video files to pixels: open, sample, decode and preprocess frames.

    path or bytes ──read_video──> VideoClip, uint8 (F, H, W, 3) ──preprocess_frames──> float32 (F, 3, S, S)

PyAV and decord are imported only when a video is read with them.
"""

from llava_scissor.video.clip import VideoClip, read_video
from llava_scissor.video.preprocess import preprocess_frames
from llava_scissor.video.sampling import uniform_indices

__all__ = ["VideoClip", "preprocess_frames", "read_video", "uniform_indices"]
