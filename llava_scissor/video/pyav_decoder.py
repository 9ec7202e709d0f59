"""The default backend: PyAV (FFmpeg), with frame numbers that are exact for every container.

Two passes over the packets of a file. The first decodes nothing: it lists the packets, which gives the true
number of frames and their order, also where the header has no frame count or the frame rate varies. The
second decodes, for each wanted frame, the packets from the key frame before it up to the frame itself, and
skips the others. Skipping instead of seeking lands on the right packet in every container and in damaged
files; reading packets is far cheaper than decoding them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream
from jaxtyping import Bool, UInt8

from llava_scissor.errors import VideoError
from llava_scissor.video.frame_table import FrameTable, Packet
from llava_scissor.video.source import VideoSource

_LOGGER = logging.getLogger(__name__)
_DEFAULT_RATE = 25.0  # FFmpeg's own assumption for streams that tell neither times nor a rate


class PyavReader:
    """A video listed with PyAV. No file stays open between the calls.

    Attributes:
        num_source_frames: Frames in the file, counted.
        fps: Mean frame rate in frames per second; None if the file does not tell.
        timestamps_s: Time of each frame in seconds after the first.
        has_closed_groups: Whether a decoder that starts at any key frame shows all frames from there on.
    """

    def __init__(self, source: VideoSource) -> None:
        """List the packets of the file.

        Raises:
            VideoError: The file is no video, has no picture stream or no frames, or its codec is unknown.
        """
        self._source = source
        self._size: tuple[int, int] | None = None
        with self._open() as (container, stream):
            self._table = FrameTable(_list_packets(container, self._demux(container, stream), stream))
            rate = float(stream.average_rate or stream.guessed_rate or 0) or None
            time_base, num_announced = stream.time_base, stream.frames
        ticks = self._table.ticks
        self.has_closed_groups = self._table.has_closed_groups
        self.num_source_frames = self._count_by_decoding() if ticks is None else len(ticks)
        if self.num_source_frames == 0:
            raise VideoError(
                f"{source} has a video stream without a single frame. Give a complete video file."
            )
        if num_announced > self._table.num_packets:
            _LOGGER.warning(
                "%s is cut off: its header announces %d frames, the %d that are there are used.",
                source.name, num_announced, self._table.num_packets,
            )  # fmt: skip
        if ticks is None:
            self.timestamps_s = [index / (rate or _DEFAULT_RATE) for index in range(self.num_source_frames)]
        else:
            assert time_base is not None  # the unit of the times
            self.timestamps_s = [float((pts - ticks[0]) * time_base) for pts in ticks]
        span_s = self.timestamps_s[-1]
        self.fps = (self.num_source_frames - 1) / span_s if span_s else rate

    def decode(self, indices: Sequence[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        """Yield (index, upright RGB picture) for each index that can be decoded.

        Frames that do not come out get a second try that starts one key frame earlier, so that a damaged or
        gradual key frame is bridged by what came before it.

        Raises:
            VideoError: The file cannot be opened any more.
        """
        missing = set(indices)
        for run_up in (0, 1):
            for index, picture in self._decode_pass(frozenset(missing), run_up):
                if index in missing:
                    missing.remove(index)
                    yield index, picture
            if not missing:
                return

    def _decode_pass(self, wanted: Collection[int], run_up: int) -> Iterator[tuple[int, np.ndarray]]:
        is_needed = self._table.packets_for(wanted, run_up)
        with self._open() as (container, stream):
            if run_up == 0:  # the second try goes without: a damaged frame can take others in flight along
                stream.thread_type = "AUTO"
            for count, frame in enumerate(self._decode_packets(container, stream, is_needed)):
                index = self._table.index_of(frame.pts, count)
                if index is not None and index in wanted:
                    yield index, self._picture(frame)

    def _count_by_decoding(self) -> int:
        with self._open() as (container, stream):
            stream.thread_type = "AUTO"
            return sum(1 for _ in self._decode_packets(container, stream, self._table.packets_for(())))

    def _decode_packets(
        self, container: InputContainer, stream: VideoStream, is_needed: Bool[np.ndarray, " packets"]
    ) -> Iterator[av.VideoFrame]:
        """Decode the needed packets; after each unbroken run of them, empty the decoder and start afresh."""
        is_end_of_run = is_needed & ~np.append(is_needed[1:], False)
        num_runs = int(is_end_of_run.sum())
        for number, packet in enumerate(self._demux(container, stream)):
            if is_needed[number]:
                yield from self._send(stream, packet)
            if is_end_of_run[number]:
                yield from self._send(stream, None)
                stream.codec_context.flush_buffers()
                num_runs -= 1
                if num_runs == 0:
                    return

    def _send(self, stream: VideoStream, packet: av.Packet | None) -> list[av.VideoFrame]:
        try:
            return stream.codec_context.decode(packet)
        except FFmpegError as error:  # the next packet may be fine; what is missing in the end is reported
            _LOGGER.debug("%s: a packet cannot be decoded: %s", self._source.name, error)
            return []

    def _demux(self, container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
        try:
            for packet in container.demux(stream):
                if packet.size:  # the last one is empty and means the end
                    yield packet
        except IndexError:  # how PyAV ends a file in which a second stream begins midway
            return
        except FFmpegError as error:
            _LOGGER.warning("%s: reading stopped before the end of the file: %s", self._source.name, error)

    @contextmanager
    def _open(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        # A playlist must not make FFmpeg fetch what it names, least of all one that came in as bytes.
        allowed = "none" if isinstance(self._source.location, bytes) else "file"
        try:
            with av.open(
                self._source.target(),
                mode="r",
                metadata_errors="replace",
                container_options={"protocol_whitelist": allowed},
            ) as container:
                yield container, _video_stream(container, self._source)
        except FFmpegError as error:
            raise VideoError(
                f"{self._source} cannot be read as a video: {error.strerror}. Give a complete video file, "
                "such as MP4, MKV, WebM, AVI or GIF; an MP4 cut off before its index (moov) is not complete."
            ) from error

    def _picture(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        # A stream may change its size midway; a clip has one size, that of the first frame decoded.
        self._size = width, height = self._size or (frame.width, frame.height)
        return _upright(frame.to_ndarray(format="rgb24", width=width, height=height), frame)


def _video_stream(container: InputContainer, source: VideoSource) -> VideoStream:
    """Return the stream with the moving picture, or say what there is instead."""
    if container.format.name == "image2" or container.format.name.endswith("_pipe"):
        raise VideoError(f"{source} is a still picture, not a video. Give a video file.")
    stream = container.streams.best("video")
    is_text = container.format.name == "tty"
    if not isinstance(stream, VideoStream) or is_text or stream.disposition & Disposition.attached_pic:
        types = ", ".join(other.type for other in container.streams) or "none"
        raise VideoError(
            f"{source} holds no moving pictures (streams: {types}). Give a file with a video stream."
        )
    if stream.codec_context is None:
        raise VideoError(f"{source} has a video codec that is unknown. Re-encode it, for example to H.264.")
    return stream


def _list_packets(
    container: InputContainer, demuxed: Iterator[av.Packet], stream: VideoStream
) -> list[Packet]:
    packets = [Packet(packet.pts, packet.is_keyframe, not packet.is_discard) for packet in demuxed]
    times = [packet.pts for packet in packets if packet.pts is not None]
    is_in_file_order = len(times) == len(packets) and times == sorted(times)
    # AVI stores no presentation times: FFmpeg counts packets, which is wrong where the codec reorders frames.
    if container.format.name == "avi" and stream.codec_context.has_b_frames and is_in_file_order:
        return [packet._replace(pts=None) for packet in packets]
    return packets


def _upright(
    picture: UInt8[np.ndarray, "h w 3"], frame: av.VideoFrame
) -> UInt8[np.ndarray, "shown_h shown_w 3"]:
    """Turn and mirror a picture by quarter turns, as the display matrix of its frame says."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return picture
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5]  # x' = a x + c y, y' = b x + d y
    x_sign, y_sign = (c, b) if abs(b) > abs(a) else (a, d)
    turned = picture.transpose(1, 0, 2) if abs(b) > abs(a) else picture
    return turned[:: -1 if y_sign < 0 else 1, :: -1 if x_sign < 0 else 1]
