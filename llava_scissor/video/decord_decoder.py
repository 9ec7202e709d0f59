"""The optional decord backend: the decoder of the original code, for comparisons with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from llava_scissor.errors import MissingDependencyError, VideoError
from llava_scissor.video.pyav_decoder import PyavReader
from llava_scissor.video.source import VideoSource

# What decord's Python layer raises for broken files, beside its own two error classes.
_BUILTIN_FAILURES = (RuntimeError, AssertionError, IndexError, StopIteration, UnicodeDecodeError)
# Elsewhere (AVI, MPEG, ASF), and where groups of frames are not closed, decord's seek silently goes wrong.
_KINDS_TO_SEEK_IN = ("MP4 or MOV", "Matroska or WebM")
_NO_SILENT_REPAIR = 1e-9  # share of the frames that decord may replace by neighbours without an error
_DEFAULT_RATE = 25.0


class DecordReader:
    """A video opened with decord, which gives a damaged file up as a whole and knows no AV1, GIF or MPEG-TS.

    Attributes:
        num_source_frames: Frames in the file.
        fps: Mean frame rate in frames per second; None if decord does not tell.
        timestamps_s: Start of each frame in seconds after the first.
    """

    def __init__(self, source: VideoSource) -> None:
        """Open the file and list its frames.

        Raises:
            VideoError: decord cannot read the file.
            MissingDependencyError: decord is not installed.
        """
        self._decord = _import_decord()
        self._failures = (self._decord.DECORDError, self._decord.DECORDLimitReachedError, *_BUILTIN_FAILURES)
        self._source = source
        try:
            self._video = self._open()
            self.num_source_frames = len(self._video)
            self.fps = float(self._video.get_avg_fps()) or None
            starts_s = self._video.get_frame_timestamp(range(self.num_source_frames))[:, 0]
        except self._failures as error:
            raise self._error("cannot be read") from error
        self._can_seek = source.kind in _KINDS_TO_SEEK_IN and PyavReader(source).has_closed_groups
        if not (np.diff(starts_s) > 0).all():  # decord has no times for this container
            starts_s = np.arange(self.num_source_frames) / (self.fps or _DEFAULT_RATE)
        # decord stores float32, which holds no finer steps.
        self.timestamps_s = np.round((starts_s - starts_s[0]).astype(np.float64), 6).tolist()

    def decode(self, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        """Yield (index, upright RGB picture) for each index.

        Args:
            indices: Frame numbers, ascending.

        Raises:
            VideoError: decord cannot decode one of them.

        Cost:
            One seek for each frame, or all frames up to the last where random access is not exact.
        """
        for place, index in enumerate(indices):
            picture = self._seek(index) if self._can_seek else None
            if picture is None:
                yield from self._decode_in_order(indices[place:])
                return
            yield index, picture

    def _seek(self, index: int) -> UInt8[np.ndarray, "h w 3"] | None:
        try:
            return self._video[index].asnumpy()
        except self._decord.DECORDLimitReachedError:  # it landed beside the frame
            return None
        except self._failures as error:
            raise self._error(f"cannot be decoded near frame {index}") from error

    def _decode_in_order(self, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        wanted = frozenset(indices)
        try:
            video = self._open()
            for index in range(indices[-1] + 1):
                picture = video.next().asnumpy()
                if index in wanted:
                    yield index, picture
        except self._failures as error:
            raise self._error("cannot be decoded completely") from error

    def _open(self) -> Any:
        return self._decord.VideoReader(self._source.target(), fault_tol=_NO_SILENT_REPAIR)

    def _error(self, what: str) -> VideoError:
        return VideoError(
            f"{self._source} {what} with decord. Check that it is a complete video, or use decoder='pyav', "
            "which knows more formats and uses what it can of a damaged file."
        )


def _import_decord() -> ModuleType:
    try:
        import decord
    except ImportError as error:
        raise MissingDependencyError(
            "decoder='decord' needs the package decord, which is not installed. "
            "Run: pip install 'llava-scissor[decord]', or use decoder='pyav'."
        ) from error
    return decord
