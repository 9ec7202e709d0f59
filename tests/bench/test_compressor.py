from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from llava_scissor.bench import compressor as room
from llava_scissor.bench.compressor import (
    BUDGET,
    PRODUCTS,
    TAU,
    CompressorBench,
    Drawn,
    bench_compressor,
    find_threshold,
    open_features,
)
from llava_scissor.bench.recordings import Recording, read_recording
from llava_scissor.compression import compress
from llava_scissor.compression.engines.tiled import engine, screening, similarity
from llava_scissor.config import ScissorConfig
from llava_scissor.errors import InputError

SMALL = CompressorBench(tokens_per_frame=49, width=32, num_repeats=2, retention_ratios=(0.5, 0.2))
DRAWN = Drawn("made-up", 49, 32)
RECORDED = Recording("clip", torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(0)))


@pytest.fixture(autouse=True)
def quick_peaks(monkeypatch) -> None:
    """Measuring a peak takes half a second, whatever is run; the command's test does."""
    monkeypatch.setattr(room, "measure_peak", lambda function, device: function() and 2**20)


def rows_of(bench: CompressorBench, num_frames=(3,), features=DRAWN):
    return [row for rows in bench_compressor(bench, [features], num_frames) for row in rows]


@pytest.mark.parametrize("sample_size", [None, 20])
def test_every_function_is_timed_at_the_same_operating_point(sample_size) -> None:
    bench = replace(SMALL, compression=ScissorConfig(sample_size=sample_size))
    rows = rows_of(bench)
    assert [row["retention_ratio"] for row in rows] == [0.5, 0.2]
    for row in rows:
        timings = {name: one["cpu"] for name, one in row["functions"].items()}
        assert set(timings) == {PRODUCTS, TAU, BUDGET}
        assert row["tokens"]["kept_at_budget"] == int(row["retention_ratio"] * 3 * 49)
        assert row["tokens"]["kept_at_tau"] == pytest.approx(row["tokens"]["kept_at_budget"], rel=0.05)
        assert row["tokens"]["input"] == 147
        assert -1 <= row["budget_taus"]["temporal"] <= 1
        assert abs(row["budget_taus"]["spatial"] - row["tau"]) < 0.3
        assert row["tau_over_products"] == timings[TAU]["min_s"] / timings[PRODUCTS]["min_s"]
        assert row["budget_over_tau"] == timings[BUDGET]["min_s"] / timings[TAU]["min_s"]
        for timing in timings.values():
            assert timing["num_repeats"] == 2
            assert 0 < timing["min_s"] <= timing["p50_s"] <= timing["p95_s"]
    assert json.loads(json.dumps(rows)) == rows
    assert json.loads(json.dumps(bench.settings())) == bench.settings()


def test_one_thread_is_measured_in_cpu_seconds_and_several_in_those_that_pass() -> None:
    assert SMALL.clock == "cpu"
    assert replace(SMALL, num_threads=2).clock == "wall"
    assert replace(SMALL, device="cuda").clock == "wall"
    row = rows_of(replace(SMALL, num_threads=2, retention_ratios=(0.5,)))[0]
    wall_s = {name: one["wall"]["min_s"] for name, one in row["functions"].items()}
    assert row["budget_over_tau"] == wall_s[BUDGET] / wall_s[TAU]


def test_the_threads_are_those_of_the_bench_and_come_back() -> None:
    before = torch.get_num_threads()
    seen = []
    bench = replace(SMALL, num_threads=before + 1, num_repeats=1, retention_ratios=(0.5,))
    for rows in bench_compressor(bench, [DRAWN], [2]):
        seen += [torch.get_num_threads(), len(rows)]
    assert seen == [before + 1, 1]
    assert torch.get_num_threads() == before


def test_each_number_of_frames_of_each_features_has_its_rows() -> None:
    bench = replace(SMALL, num_repeats=1, retention_ratios=(0.5,))
    rows = list(bench_compressor(bench, [DRAWN, RECORDED], [4, 2]))
    assert [len(one) for one in rows] == [1] * 4
    assert [(one[0]["features"], one[0]["num_frames"], one[0]["width"]) for one in rows] == [
        ("made-up", 4, 32),
        ("made-up", 2, 32),
        ("clip", 4, 8),
        ("clip", 2, 8),
    ]


def test_all_recorded_frames_are_taken_by_default() -> None:
    row = rows_of(replace(SMALL, num_repeats=1, retention_ratios=(0.5,)), (), RECORDED)[0]
    assert (row["num_frames"], row["tokens_per_frame"]) == (5, 4)


def test_frames_that_were_not_recorded_are_refused_before_anything_is_measured() -> None:
    rows = bench_compressor(SMALL, [DRAWN, RECORDED], [2, 6])
    with pytest.raises(InputError, match=r"--frames 6: clip has 5 frames"):
        next(rows)


@pytest.mark.parametrize("target", [1, 30, 73, 140, 147])
def test_the_threshold_keeps_as_many_tokens(target: int) -> None:
    tokens = DRAWN.take(3)
    found = find_threshold(tokens, ScissorConfig(), target, {})
    assert found.retention_ratio is None
    assert compress(tokens, found).num_kept == pytest.approx(target, abs=max(1, 0.02 * target))


def test_the_search_begins_with_what_was_tried_before_and_stops_in_between() -> None:
    """Two equal tokens in each of three frames: no threshold keeps four."""
    tokens = torch.eye(3).repeat_interleave(2, 0).view(3, 2, 3)
    counts: dict[float, int] = {}
    assert compress(tokens, find_threshold(tokens, ScissorConfig(), 4, counts)).num_kept == 3
    assert len(counts) == 14
    assert find_threshold(tokens, ScissorConfig(), 3, counts).tau in counts
    assert len(counts) == 14


def test_other_settings_reach_both_modes(monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(
        room, "compress", lambda tokens, config: seen.append(config) or compress(tokens, config)
    )
    given = ScissorConfig(preset="recommended", tau=0.3, temporal_window=2)
    rows_of(replace(SMALL, compression=given, retention_ratios=(0.5,)))
    assert {(config.temporal_window, config.positions) for config in seen} == {(2, "original")}
    assert {config.retention_ratio for config in seen} == {None, 0.5}
    assert all((config.tau is None) == (config.retention_ratio == 0.5) for config in seen)


def test_the_plain_versions_take_the_threshold() -> None:
    row = rows_of(replace(SMALL, use_plain=True, num_repeats=1, retention_ratios=(0.2,)))[0]
    assert list(row["functions"]) == [PRODUCTS, TAU, BUDGET, "SciPy", "union-find"]


def test_a_cpu_without_bfloat16_can_be_stood_in_for(monkeypatch) -> None:
    formats = []
    normalised = similarity.directions
    monkeypatch.setattr(
        engine,
        "directions",
        lambda tokens: formats.append(normalised(tokens).coarse.dtype) or normalised(tokens),
    )
    before = screening.fast_dtype(torch.device("cpu"))
    rows_of(replace(SMALL, float32_products=True, num_repeats=1, retention_ratios=(0.5,)))
    assert set(formats) == {torch.float32}
    assert screening.fast_dtype(torch.device("cpu")) == before


def test_features_are_a_generator_or_a_file(tmp_path) -> None:
    path = tmp_path / "smooth"
    save_file({"tokens": torch.ones(2, 4, 8)}, path)
    assert open_features("smooth", SMALL) == Drawn("smooth", 49, 32)
    assert isinstance(open_features(str(path), SMALL), Recording)
    with pytest.raises(
        InputError, match=r"--features smoth: expected made-up, smooth, chains or a safetensors"
    ):
        open_features("smoth", SMALL)


def test_frames_of_a_recording_are_spread_evenly() -> None:
    tokens = torch.arange(5.0).view(5, 1, 1)
    recording = Recording("clip", tokens)
    assert recording.take(3).flatten().tolist() == [0, 2, 4]
    assert recording.take(1).flatten().tolist() == [0]
    assert torch.equal(recording.take(5), tokens)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "has no tensor 'tokens', only no tensor at all"),
        ({"a": torch.ones(1, 4, 8), "b": torch.ones(1)}, "has no tensor 'tokens', only a, b"),
        ({"tokens": torch.ones(4, 8)}, r"expected .* got shape \(4, 8\) of torch.float32"),
        ({"tokens": torch.ones(0, 4, 8)}, r"got shape \(0, 4, 8\)"),
        ({"tokens": torch.ones(1, 4, 8, dtype=torch.int32)}, r"got shape \(1, 4, 8\) of torch.int32"),
        ({"tokens": torch.full((1, 4, 8), float("nan"))}, "contains NaN or infinity"),
        ({"tokens": torch.full((1, 4, 8), float("inf")).half()}, "contains NaN or infinity"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, tensors, message: str) -> None:
    save_file(tensors, tmp_path / "clip.safetensors")
    with pytest.raises(InputError, match=message) as error:
        read_recording(tmp_path / "clip.safetensors")
    assert "clip.safetensors" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\xff" * 100])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content: bytes) -> None:
    (tmp_path / "clip.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"clip.safetensors cannot be read as safetensors"):
        read_recording(tmp_path / "clip.safetensors")
