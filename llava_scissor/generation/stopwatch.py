"""Seconds per stage."""

from __future__ import annotations

import time

import torch


class Stopwatch:
    """Times stages that follow each other without a gap, so that they add up to the total.

    A GPU works on after a call has returned; each lap waits until it is done.

    Attributes:
        laps_s: seconds of each stage so far, by name.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last_s = self._now_s()
        self.laps_s: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End the stage that began with the previous lap, and call it `name`; laps of one name add up."""
        now_s = self._now_s()
        self.laps_s[name] = self.laps_s.get(name, 0.0) + now_s - self._last_s
        self._last_s = now_s

    def _now_s(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
