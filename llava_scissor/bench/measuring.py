"""Time and memory of functions, measured side by side in one process."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): resets the high-water mark of the resident set

ENOUGH_S = 5.0
"""A function is not run again once its runs have taken this long together."""


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs, on one clock.

    Attributes:
        min_s: the fastest run, which other work on the machine disturbed least.
        p50_s: median.
        p95_s: 95th percentile, the longest run where there are fewer than 20.
        num_repeats: runs that were timed.
    """

    min_s: float
    p50_s: float
    p95_s: float
    num_repeats: int


@dataclass(frozen=True)
class Clocks:
    """The same runs on two clocks.

    Attributes:
        wall: seconds that passed, the device's work included.
        cpu: CPU seconds of all threads of this process.
    """

    wall: Timing
    cpu: Timing


def time_side_by_side(
    functions: Mapping[str, Callable[[], Any]],
    num_repeats: int,
    device: torch.device,
    enough_s: float = ENOUGH_S,
) -> dict[str, Clocks]:
    """Run some functions in turn, again and again, so that what disturbs the machine disturbs them all.

    The first run of each only warms up, unless it takes so long that it is the only one.

    Args:
        functions: what to time, by name.
        num_repeats: timed runs of each; fewer of a function that takes long.
        device: waited for before a clock is read.
        enough_s: a function is not run again once its runs have taken this long together.

    Returns:
        Timings by name.
    """
    warm_up = {name: [time_once(function, device)] for name, function in functions.items()}
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(num_repeats):
        for name, function in functions.items():
            if sum(wall_s for wall_s, _ in warm_up[name] + runs[name]) < enough_s:
                runs[name].append(time_once(function, device))
    clocks = {name: zip(*(runs[name] or warm_up[name]), strict=True) for name in functions}
    return {name: Clocks(*(summarize_times(list(s)) for s in pair)) for name, pair in clocks.items()}


def clock_of(device: str, num_threads: int) -> Literal["cpu", "wall"]:
    """Return which seconds to compare: CPU seconds of one thread, else those that pass.

    Threads that wait for cores which other programs use lengthen the time that passes; they may wait in a loop,
    which lengthens the CPU time.
    """
    return "cpu" if num_threads == 1 and torch.device(device).type == "cpu" else "wall"


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let PyTorch use so many threads for the length of a `with` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def summarize_times(seconds: list[float]) -> Timing:
    """Return the fastest, the median and the 95th percentile of some runs."""
    ordered = sorted(seconds)
    rank = min(len(ordered) - 1, -(-95 * len(ordered) // 100) - 1)
    return Timing(ordered[0], statistics.median(ordered), ordered[rank], len(ordered))


def measure_peak(function: Callable[[], Any], device: torch.device) -> int | None:
    """Run a function once and return by how many bytes memory rose above its start, at most.

    Returns:
        On a GPU, what PyTorch allocated there; on Linux, the resident set of this process; None elsewhere.
    """
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    if not os.access(_CLEAR, os.W_OK):
        function()
        return None
    _return_free_memory()
    _CLEAR.write_text(_RESET_PEAK)
    before = _resident("VmRSS")
    function()
    return _resident("VmHWM") - before


def _return_free_memory() -> None:
    """Let the C library give back what it holds free, where it can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def time_once(function: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Return wall and CPU seconds of one run."""
    wall_s, cpu_s = _now_s(device)
    function()
    wall_end_s, cpu_end_s = _now_s(device)
    return wall_end_s - wall_s, cpu_end_s - cpu_s


def _now_s(device: torch.device) -> tuple[float, float]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter(), time.process_time()


def _resident(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", _STATUS.read_text())
    assert found, f"{_STATUS} has no {key}"
    return 1024 * int(found[1])
