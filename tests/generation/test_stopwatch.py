from __future__ import annotations

import pytest
import torch

from llava_scissor.generation import stopwatch as stopwatch_module
from llava_scissor.generation.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    ticks = iter([10.0, 10.5, 12.0])
    monkeypatch.setattr(stopwatch_module.time, "perf_counter", lambda: next(ticks))


def test_laps_follow_each_other_without_a_gap(clock):
    watch = Stopwatch(torch.device("cpu"))
    watch.lap("first")
    watch.lap("second")
    assert watch.laps_s == {"first": 0.5, "second": 1.5}


def test_laps_of_one_name_add_up(clock):
    watch = Stopwatch(torch.device("cpu"))
    watch.lap("first")
    watch.lap("first")
    assert watch.laps_s == {"first": 2.0}


def test_each_lap_waits_for_the_gpu(clock, monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    device = torch.device("cuda", 1)
    Stopwatch(device).lap("first")
    assert waits == [device, device]
