from __future__ import annotations

import json

import pytest
import torch

from llava_scissor.bench.compressor import FLOOR, CompressorBench, bench_compressor
from llava_scissor.compression import precision, scissor, similarity

SMALL = {"num_frames": 3, "tokens_per_frame": 49, "width": 32, "num_repeats": 2}


@pytest.mark.parametrize("sample_size", [None, 20])
def test_every_function_is_timed_at_the_same_operating_point(sample_size) -> None:
    report = bench_compressor(CompressorBench(**SMALL, retention_ratio=0.2, sample_size=sample_size))
    rows = {row["name"]: row for row in report["rows"]}
    assert set(rows) == {FLOOR, "scissor, tau", "scissor, budget"}
    assert rows["scissor, budget"]["kept"] == int(0.2 * 3 * 49)
    assert rows[FLOOR]["ratio"] == 1
    for row in rows.values():
        assert row["num_repeats"] == 2
        assert row["ratio"] == pytest.approx(row["min_s"] / rows[FLOOR]["min_s"])
        assert 0 < row["min_s"] <= row["p50_s"] <= row["p95_s"]
    assert report["tokens"]["input"] == 147
    assert json.loads(json.dumps(report)) == report


def test_the_plain_versions_keep_as_many_tokens_as_the_threshold() -> None:
    report = bench_compressor(CompressorBench(**SMALL, use_plain=True))
    kept = {row["name"]: row["kept"] for row in report["rows"]}
    assert kept["SciPy"] == kept["union-find"]
    assert kept["SciPy"] == pytest.approx(kept["scissor, tau"], abs=1)  # tau is the similarity of a pair


def test_a_cpu_without_bfloat16_can_be_stood_in_for(monkeypatch) -> None:
    formats = []
    normalised = similarity.directions
    monkeypatch.setattr(
        scissor,
        "directions",
        lambda tokens: formats.append(normalised(tokens).coarse.dtype) or normalised(tokens),
    )
    before = precision.fast_dtype(torch.device("cpu"))
    report = bench_compressor(CompressorBench(**SMALL, float32_products=True))
    assert set(formats) == {torch.float32}
    assert report["float32_products"]
    assert precision.fast_dtype(torch.device("cpu")) == before
