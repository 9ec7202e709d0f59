"""Which packets of a video file hold which frame. Pure bookkeeping, no decoding."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool


class Packet(NamedTuple):
    """What is kept of one compressed packet.

    Attributes:
        pts: Presentation time in ticks of the stream; None if the file does not tell.
        is_keyframe: Whether decoding can start here.
        is_shown: Whether it becomes a frame. An edit list can cut away packets that others still need.
    """

    pts: int | None
    is_keyframe: bool
    is_shown: bool


class FrameTable:
    """Frame numbers, in the order of presentation, of packets, in the order of decoding.

    Attributes:
        num_packets: Packets in the file.
        ticks: Presentation times of the frames, ascending. None if times are missing or repeat: then frames
            are known only by counting what comes out of the decoder.
    """

    def __init__(self, packets: Sequence[Packet]) -> None:
        """Sort the packets by time."""
        self._packets = packets
        self._keyframes = [number for number, packet in enumerate(packets) if packet.is_keyframe]
        self.num_packets = len(packets)
        times = {p.pts: number for number, p in enumerate(packets) if p.is_shown and p.pts is not None}
        is_dated = len(times) == sum(packet.is_shown for packet in packets)
        self.ticks = sorted(times) if is_dated else None
        self._packet_of = [times[pts] for pts in self.ticks or ()]
        self._index_of = {pts: index for index, pts in enumerate(self.ticks or ())}

    def index_of(self, pts: int | None, count: int) -> int | None:
        """Return the number of a decoded frame: from its time, or else from how many came out before it."""
        if self.ticks is None:
            return count
        return None if pts is None else self._index_of.get(pts)

    @property
    def has_closed_groups(self) -> bool:
        """Whether every packet is shown and none that is stored after a key frame is shown before it."""
        is_complete = len(self._packet_of) == self.num_packets
        return is_complete and all(self._packet_of[number] == number for number in self._keyframes)

    def packets_for(self, indices: Iterable[int], run_up: int = 0) -> Bool[np.ndarray, " packets"]:
        """Mark the packets that have to be decoded to get some frames.

        Args:
            indices: Frame numbers.
            run_up: How many key frames earlier than necessary decoding starts.
        """
        if self.ticks is None:
            return np.ones(self.num_packets, np.bool_)
        is_needed = np.zeros(self.num_packets, np.bool_)
        for index in indices:
            last = self._packet_of[index]
            is_needed[self._start(last, run_up) : last + 1] = True
        return is_needed

    def _start(self, last: int, run_up: int) -> int:
        key = bisect_right(self._keyframes, last) - 1
        # A frame stored after a key frame but shown before it also needs the group before (open GOP).
        shown = self._packets[last].pts or 0
        while key > 0 and (self._packets[self._keyframes[key]].pts or 0) > shown:
            key -= 1
        key -= run_up
        return self._keyframes[key] if key >= 0 else 0
