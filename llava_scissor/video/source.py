"""Where a video comes from, checked before any decoder sees it, and what every decoder has to offer."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from llava_scissor.errors import VideoError

_HEAD_BYTES = 64
_SIGNATURES = {  # (offset, first bytes): what the file is
    (4, b"ftyp"): "MP4 or MOV",
    (0, b"\x1a\x45\xdf\xa3"): "Matroska or WebM",
    (0, b"RIFF"): "AVI, WAV or WebP",
    (0, b"GIF8"): "GIF",
    (0, b"\x89PNG"): "PNG",
    (0, b"\xff\xd8\xff"): "JPEG",
    (0, b"OggS"): "Ogg",
    (0, b"ID3"): "MP3",
    (0, b"YUV4MPEG2"): "raw YUV4MPEG",
    (0, b"#EXTM3U"): "text",
    (0, b"ffconcat"): "text",
}
_TEXT_CONTROLS = "\t\n\r\f"


@runtime_checkable
class FrameReader(Protocol):
    """One listed video, as every decoder backend presents it."""

    num_source_frames: int
    fps: float | None
    timestamps_s: list[float]  # one for each source frame, the first is 0

    def decode(self, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        """Yield (index, upright RGB picture) once for each of the ascending indices that can be decoded."""
        ...


@dataclass(frozen=True)
class VideoSource:
    """A file or byte string that may be a video.

    Attributes:
        location: Absolute path of the file, or its content.
        name: How messages call it.
        num_bytes: Its size.
        kind: What it looks like from its first bytes.
    """

    location: Path | bytes
    name: str
    num_bytes: int
    kind: str

    @classmethod
    def check(cls, source: str | Path | bytes) -> VideoSource:
        """Make sure that there is something to decode.

        Raises:
            VideoError: The source is missing, not a regular file, not readable, empty, or text. Text is
                refused here because playlists are text: decoders would open the addresses that they name.
        """
        if isinstance(source, bytes):
            location, name = source, f"video of {len(source):,} bytes in memory"
            num_bytes, head = len(source), source[:_HEAD_BYTES]
        else:
            location, name = Path(source).absolute(), str(source)
            num_bytes, head = _look_into(location)
        if num_bytes == 0:
            raise VideoError(f"{name} is empty (0 bytes). Give a complete video file.")
        kind = _kind_of(head)
        if kind == "text":
            raise VideoError(f"{name} ({num_bytes:,} bytes) is text, not a video. Give a video file.")
        return cls(location, name, num_bytes, kind)

    def target(self) -> str | io.BytesIO:
        """Return what a decoder opens; an absolute path cannot be mistaken for a protocol (`concat:...`)."""
        return io.BytesIO(self.location) if isinstance(self.location, bytes) else str(self.location)

    def __str__(self) -> str:
        return f"{self.name} ({self.num_bytes:,} bytes, {self.kind})"


def _look_into(path: Path) -> tuple[int, bytes]:
    """Return the size and the first bytes of a regular file."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise VideoError(f"{path} is a directory. Give the path of one video file.")
        if not stat.S_ISREG(status.st_mode):
            raise VideoError(f"{path} is a device, pipe or socket. Give the path of a regular video file.")
        with path.open("rb") as file:
            return status.st_size, file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise VideoError(f"There is no file {path}. Check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise VideoError(f"{path} cannot be read: {error}. Give a readable video file.") from error


def _kind_of(head: bytes) -> str:
    for (offset, signature), kind in _SIGNATURES.items():
        if head[offset:].startswith(signature):
            return kind
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if len(head) - error.start > 3:  # a character cut in two at the end is no sign against text
            return "unknown data"
        text = head[: error.start].decode()
    return "text" if all(char.isprintable() or char in _TEXT_CONTROLS for char in text) else "unknown data"
