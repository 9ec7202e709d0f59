from __future__ import annotations

import json
from dataclasses import replace

import pytest

from llava_scissor.bench import growth as growth_bench
from llava_scissor.bench.growth import GrowthBench, bench_growth, measure_all
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


def test_what_is_stored_is_not_measured_again(tmp_path, monkeypatch) -> None:
    first = measure_all([2], SMALL, tmp_path)
    monkeypatch.setattr(growth_bench, "bench_growth", None)
    assert measure_all([2], SMALL, tmp_path) == first
    with pytest.raises(InputError, match=r"other settings \(width 32 there, 16 now\)"):
        measure_all([2], replace(SMALL, width=16), tmp_path)
