"""Read a clip: source -> reader -> frame numbers -> pixels, with a stand-in for each damaged frame."""

from __future__ import annotations

import logging
import operator
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from llava_scissor.errors import InputError, VideoError
from llava_scissor.video.sampling import uniform_indices
from llava_scissor.video.source import FrameReader, VideoSource

_LOGGER = logging.getLogger(__name__)
_DECODERS = ("pyav", "decord")


@dataclass(frozen=True, eq=False)
class VideoClip:
    """Frames sampled from one video.

    Attributes:
        frames: Upright RGB pictures (F, H, W, 3), uint8, on the CPU, in the order of time.
        indices: Source frame number that each picture shows (F,). Ascending; numbers repeat where more frames
            were asked for than there are, or where a frame stands in for a damaged one.
        timestamps_s: Time of each picture (F,), in seconds after the first frame of the video.
        num_source_frames: Frames that the video has.
        fps: Mean frame rate of the video in frames per second; None if the file does not tell.
        num_missing: Source frames that were asked for and could not be decoded.
        source: The path, or the size for a video from memory.
    """

    frames: UInt8[Tensor, "f h w 3"]
    indices: tuple[int, ...]
    timestamps_s: tuple[float, ...]
    num_source_frames: int
    fps: float | None
    num_missing: int
    source: str


def read_video(source: str | Path | bytes, num_frames: int, decoder: str = "pyav") -> VideoClip:
    """Sample `num_frames` frames evenly from a video file.

    The frame numbers are those of `uniform_indices`, so that a short video repeats frames. A frame that
    cannot be decoded is replaced by the nearest sampled frame that can: `indices` then names the frame shown,
    `num_missing` counts the damaged ones, and a warning is logged.

    Args:
        source: Path of a video file, or the content of one.
        num_frames: Frames to return (F), at least 1.
        decoder: `pyav` (knows most formats, uses what it can of a damaged file) or `decord` (optional).

    Returns:
        The clip, always with F frames.

    Raises:
        InputError: `num_frames` is not a positive integer, or the decoder is unknown.
        VideoError: The source is missing, unreadable, not a video, or no frame of it can be decoded.
        MissingDependencyError: The decoder's package is not installed.

    Cost:
        Memory for F pictures and one more. Time: the whole file is read, and each sampled frame is decoded
        from the key frame before it.
    """
    if isinstance(num_frames, bool) or operator.index(num_frames) < 1:
        raise InputError(f"num_frames is {num_frames!r}, but it must be an integer of at least 1.")
    if decoder not in _DECODERS:
        raise InputError(f"There is no decoder {decoder!r}. Choose one of: {', '.join(_DECODERS)}.")
    checked = VideoSource.check(source)
    reader = _open_reader(checked, decoder)
    wanted = uniform_indices(reader.num_source_frames, num_frames)
    frames, decoded = _decode_all(reader, wanted)
    if frames is None:
        raise VideoError(
            f"{checked} is damaged: none of the {len(set(wanted))} frames asked for can be decoded. "
            "Repair it or encode it again, for example with ffmpeg."
        )
    shown = _fill_missing(frames, wanted, decoded, checked.name)
    return VideoClip(
        frames=torch.from_numpy(frames),
        indices=shown,
        timestamps_s=tuple(reader.timestamps_s[index] for index in shown),
        num_source_frames=reader.num_source_frames,
        fps=reader.fps,
        num_missing=len(set(wanted) - decoded),
        source=checked.name,
    )


def _open_reader(source: VideoSource, decoder: str) -> FrameReader:
    if decoder == "pyav":
        from llava_scissor.video.pyav_decoder import PyavReader

        return PyavReader(source)
    from llava_scissor.video.decord_decoder import DecordReader

    return DecordReader(source)


def _decode_all(
    reader: FrameReader, wanted: Sequence[int]
) -> tuple[UInt8[np.ndarray, "f h w 3"] | None, set[int]]:
    """Decode each wanted frame once, straight into all of its places; also return which ones came out."""
    places = defaultdict(list)
    for place, index in enumerate(wanted):
        places[index].append(place)
    frames, decoded = None, set()
    for index, picture in reader.decode(list(places)):
        if frames is None:
            frames = np.empty((len(wanted), *picture.shape), np.uint8)
        frames[places[index]] = picture
        decoded.add(index)
    return frames, decoded


def _fill_missing(
    frames: UInt8[np.ndarray, "f h w 3"], wanted: Sequence[int], decoded: set[int], name: str
) -> tuple[int, ...]:
    """Copy the nearest decoded frame to the place of each missing one; return the frame numbers shown."""
    missing = sorted(set(wanted) - decoded)
    if not missing:
        return tuple(wanted)
    _LOGGER.warning(
        "%s: %d of %d sampled frames cannot be decoded (%s); the nearest decoded ones are shown instead.",
        name, len(missing), len(set(wanted)), ", ".join(map(str, missing)),
    )  # fmt: skip
    stand_in = {index: min(decoded, key=lambda other: (abs(other - index), other)) for index in missing}
    shown = tuple(stand_in.get(index, index) for index in wanted)
    for place, (index, source) in enumerate(zip(wanted, shown, strict=True)):
        if index != source:
            frames[place] = frames[wanted.index(source)]
    return shown
