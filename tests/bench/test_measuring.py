from __future__ import annotations

import time

import pytest
import torch

from llava_scissor.bench import measuring
from llava_scissor.bench.measuring import (
    cpu_threads,
    measure_peak,
    summarize_times,
    time_side_by_side,
)

CPU = torch.device("cpu")


def test_functions_take_turns() -> None:
    """What slows the machine down for a while slows all of them down."""
    calls: list[str] = []
    functions = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    timings = time_side_by_side(functions, num_repeats=2, device=CPU)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert {name: timing.wall.num_repeats for name, timing in timings.items()} == {"a": 2, "b": 2}


def let_runs_take(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """Make each run take so many seconds by the wall clock, and half of them by the CPU's."""
    edges = [edge for run in seconds for edge in (0.0, run)]
    wall, cpu = iter(edges), iter(edges)
    monkeypatch.setattr(time, "perf_counter", lambda: next(wall))
    monkeypatch.setattr(time, "process_time", lambda: next(cpu) / 2)


def test_a_run_is_timed_from_its_start_to_its_end_on_both_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    let_runs_take(monkeypatch, 7.0, 3.0, 1.0)
    timing = time_side_by_side({"a": lambda: None}, num_repeats=2, device=CPU, enough_s=100)["a"]
    assert (timing.wall.p50_s, timing.wall.p95_s) == (2.0, 3.0)
    assert (timing.cpu.p50_s, timing.cpu.p95_s) == (1.0, 1.5)


@pytest.mark.parametrize(
    ("seconds", "timed"),
    [
        ([6.0], [6.0]),  # the first run is enough, and stands
        ([2.0, 4.0], [4.0]),
        ([1.0, 2.0, 1.5, 0.5], [2.0, 1.5, 0.5]),
    ],
)
def test_what_takes_long_is_run_less_often(monkeypatch: pytest.MonkeyPatch, seconds, timed) -> None:
    let_runs_take(monkeypatch, *seconds)
    timing = time_side_by_side({"a": lambda: None}, num_repeats=9, device=CPU, enough_s=5)["a"]
    assert timing.wall == summarize_times(timed)


def test_threads_are_set_for_a_while() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError, match=str(before + 1)), cpu_threads(before + 1):
        raise KeyError(torch.get_num_threads())
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("runs", "p50_s", "p95_s"),
    [
        ([3.0], 3.0, 3.0),
        ([1.0, 9.0, 2.0], 2.0, 9.0),
        ([float(i) for i in range(1, 20)], 10.0, 19.0),
        ([float(i) for i in range(1, 21)], 10.5, 19.0),
        ([float(i) for i in range(100, 0, -1)], 50.5, 95.0),
    ],
)
def test_percentiles(runs: list[float], p50_s: float, p95_s: float) -> None:
    timing = summarize_times(runs)
    assert (timing.min_s, timing.p50_s, timing.p95_s) == (min(runs), p50_s, p95_s)
    assert timing.num_repeats == len(runs)


def test_the_peak_is_what_was_held_at_once() -> None:
    if measure_peak(lambda: None, CPU) is None:
        pytest.skip("this system does not say how much memory a process held")
    mebibyte = 2**20

    def hold(count: int) -> None:
        for _ in range(count):
            torch.ones(64 * mebibyte, dtype=torch.uint8)  # gone before the next

    for count in (1, 3):
        peak = measure_peak(lambda count=count: hold(count), CPU)
        assert 60 * mebibyte < peak < 80 * mebibyte


def test_no_peak_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(measuring.os, "access", lambda *_: False)
    assert measure_peak(lambda: ran.append(1), CPU) is None
    assert ran == [1]
