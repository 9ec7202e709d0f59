from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
import torch

from llava_scissor.bench import growth as growth_bench
from llava_scissor.bench import measuring
from llava_scissor.bench.growth import GrowthBench, bench_growth, measure_all
from llava_scissor.config import ScissorConfig
from llava_scissor.errors import InputError

SMALL = GrowthBench(tokens_per_frame=16, width=32, sample_size=20, num_repeats=2, retention_ratio=0.25)


def test_every_search_is_measured_on_the_same_tokens(monkeypatch) -> None:
    for enough_s in (growth_bench.ENOUGH_S, 0.0):  # repeated, and not
        monkeypatch.setattr(growth_bench, "ENOUGH_S", enough_s)
        rows = bench_growth(4, SMALL)
        assert [row["name"] for row in rows] == ["exact, tau", "sampled, tau", "sampled, budget"]
        exact, sampled, budget = (row["kept"] for row in rows)
        assert exact <= sampled  # a sampled search misses edges
        assert budget == 16
        for row in rows:
            assert row["num_frames"] == 4
            assert row["ms_per_frame"] == 250 * row["seconds"] > 0
        assert json.loads(json.dumps(rows)) == rows


def test_the_searches_differ_from_the_settings_in_what_is_compared() -> None:
    given = ScissorConfig(preset="recommended", tau=0.1, epsilon=0.5, seed=3)
    searches = replace(SMALL, compression=given).searches()
    for search in searches.values():
        assert (search.temporal_window, search.positions, search.seed) == (4, "original", 3)
        assert search.epsilon is None
    found = {name: (s.tau, s.retention_ratio, s.sample_size) for name, s in searches.items()}
    assert found == {
        "exact, tau": (0.785, None, None),
        "sampled, tau": (0.785, None, 20),
        "sampled, budget": (None, 0.25, 20),
    }


def test_seconds_are_those_of_the_clock(monkeypatch) -> None:
    wall, cpu = itertools.count(0, 3), itertools.count(0, 2)
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(wall))
    monkeypatch.setattr(measuring.time, "process_time", lambda: next(cpu))
    before = torch.get_num_threads()
    assert {row["seconds"] for row in bench_growth(1, SMALL)} == {2}
    rows = bench_growth(1, replace(SMALL, num_threads=before + 1))
    assert {(row["seconds"], row["machine"]["threads"]) for row in rows} == {(3, before + 1)}
    assert torch.get_num_threads() == before


def test_what_is_stored_is_not_measured_again(tmp_path, monkeypatch) -> None:
    first = measure_all([2], SMALL, tmp_path)
    monkeypatch.setattr(growth_bench, "bench_growth", None)
    assert measure_all([2], SMALL, tmp_path) == first
    with pytest.raises(InputError, match=r"other settings \(width 32 there, 16 now\)"):
        measure_all([2], replace(SMALL, width=16), tmp_path)
