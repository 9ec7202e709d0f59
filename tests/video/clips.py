"""Tiny clips for the tests: every frame carries its own number as black and white blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest

HEIGHT, WIDTH, NUM_BITS = 64, 96, 8
BLOCK = WIDTH // NUM_BITS


def draw(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Draw frame `number`: its bits in the upper half, lowest bit first; a moving square below."""
    picture = np.full((height, width, 3), 90, np.uint8)
    for bit in range(NUM_BITS):
        picture[: HEIGHT // 2, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    left = 3 * number % (WIDTH - BLOCK)
    picture[HEIGHT // 2 + 8 : HEIGHT - 8, left : left + BLOCK] = (200, 30, 90)
    return picture


def read_number(picture) -> int:
    """Read the number back from a decoded picture."""
    row = np.asarray(picture).astype(float).mean(-1)[HEIGHT // 4 - 4 : HEIGHT // 4 + 4].mean(0)
    return sum(
        int(row[bit * BLOCK + 4 : (bit + 1) * BLOCK - 4].mean() > 127) << bit for bit in range(NUM_BITS)
    )


def read_numbers(pictures) -> tuple[int, ...]:
    return tuple(read_number(picture) for picture in pictures)


@dataclass(frozen=True)
class Recipe:
    """How a clip is encoded; `times` are the presentation times of the frames in ticks of `time_base_hz`."""

    file_name: str
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    num_frames: int = 60
    gop: int = 12
    max_b_frames: int | None = None
    size: tuple[int, int] = (HEIGHT, WIDTH)
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    times: Sequence[int] | None = None
    time_base_hz: int = 25

    def write(self, folder: Path) -> Path:
        """Write the clip, or skip the test if this build of FFmpeg cannot encode it."""
        if self.codec not in av.codecs_available:
            pytest.skip(f"this build of PyAV has no codec {self.codec}")
        path = folder / self.file_name
        with av.open(str(path), "w", options=self.container_options) as container:
            stream = container.add_stream(self.codec, rate=self.time_base_hz, options=self.options)
            (stream.height, stream.width), stream.pix_fmt = self.size, self.pix_fmt
            stream.codec_context.gop_size = self.gop
            if self.max_b_frames is not None:
                stream.codec_context.max_b_frames = self.max_b_frames
            for number in range(self.num_frames):
                frame = av.VideoFrame.from_ndarray(draw(number, *self.size), "rgb24").reformat(
                    format=self.pix_fmt
                )
                frame.pts = number if self.times is None else self.times[number]
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path


def decode_all(path: Path) -> list[np.ndarray]:
    """Decode every frame in order, without any of the code under test."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def remux(source: Path, target: Path, shift_ticks: int = 0) -> Path:
    """Copy the packets of a clip, moved in time; what begins before zero is cut by an edit list."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        template = writer.add_stream_from_template(stream)
        for packet in reader.demux(stream):
            if packet.size:
                packet.pts, packet.dts = packet.pts + shift_ticks, packet.dts + shift_ticks
                packet.stream = template
                writer.mux(packet)
    return target


def packet_spans(path: Path) -> list[tuple[int, int]]:
    """Return position and size in the file of each video packet, in the order of the file."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def wipe_packets(source: Path, target: Path, numbers: Sequence[int]) -> Path:
    """Overwrite whole packets with zeros."""
    content = bytearray(source.read_bytes())
    spans = packet_spans(source)
    for number in numbers:
        position, size = spans[number]
        content[position : position + size] = bytes(size)
    target.write_bytes(content)
    return target


def orient(source: Path, target: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Set the display matrix (a, b, c, d) in the track header of an MP4: x' = a x + c y, y' = b x + d y."""

    def packed(a: int, b: int, c: int, d: int) -> bytes:
        one, last = 1 << 16, 1 << 30
        return np.array([a * one, b * one, 0, c * one, d * one, 0, 0, 0, last], ">i4").tobytes()

    content = source.read_bytes()
    start = content.index(packed(1, 0, 0, 1), content.index(b"tkhd"))
    target.write_bytes(content[:start] + packed(*matrix) + content[start + 36 :])
    return target
