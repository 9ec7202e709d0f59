"""The commands that measure, count and show."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from llava_scissor.cli.app import app
from llava_scissor.demo.clips import demo_clips

RUNNER = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
SMALL = ["--frames", "2", "--repeats", "1"]


def run(*arguments: str):
    return RUNNER.invoke(app, list(arguments))


def last_line(result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_the_compressor_is_measured() -> None:
    size = ["--tokens-per-frame", "16", "--width", "8", "--device", "cpu", "--repeats", "1"]
    many = ["--features", "made-up", "--features", "chains", "--frames", "2", "--frames", "3"]
    result = run("bench", "compressor", *size, *many, "--retention", "0.25")
    report = last_line(result)
    assert (report["num_repeats"], report["num_threads"], report["clock"]) == (1, 1, "cpu")
    found = [(row["features"], row["num_frames"]) for row in report["rows"]]
    assert found == [("made-up", 2), ("made-up", 3), ("chains", 2), ("chains", 3)]
    row = report["rows"][0]
    assert list(row["functions"]) == ["matrix products", "scissor, tau", "scissor, budget"]
    assert (row["width"], row["tokens"]["kept_at_budget"]) == (8, 8)
    assert row["functions"]["matrix products"]["peak_bytes"] is None
    assert "scissor, budget, peak MiB" in result.stdout or not sys.platform.startswith("linux")
    assert "1 thread, " in result.stdout
    assert "CPU time. " in result.stdout
    assert "budget / tau" in result.stdout
    assert "chains, 3 x 16 x 8 float32" in result.stdout


def test_five_ratios_fit_a_narrow_terminal(monkeypatch) -> None:
    monkeypatch.setattr("llava_scissor.bench.compressor.measure_peak", lambda *_: 2**40)
    size = ["--tokens-per-frame", "16", "--width", "8", "--device", "cpu", "--threads", "2"]
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["bench", "compressor", *SMALL, *size])
    assert "…" not in result.stdout
    assert [row["retention_ratio"] for row in last_line(result)["rows"]] == [0.5, 0.25, 0.1, 0.05, 0.02]
    assert "2 threads, " in result.stdout
    assert "Wall time. " in result.stdout


def test_the_compressor_is_measured_with_the_settings_that_are_given() -> None:
    size = ["--tokens-per-frame", "16", "--width", "8", "--device", "cpu"]
    given = ["compression.preset=recommended", "compression.retention_ratio=0.25", "compression.tau=0.5"]
    result = run("bench", "compressor", *SMALL, *size, *(f"--set={one}" for one in given))
    report = last_line(result)
    expected = {"preset": "recommended", "temporal_window": 4, "positions": "original"}
    assert report["compression"] == expected
    assert [row["retention_ratio"] for row in report["rows"]] == [0.25]
    assert "compression.tau has no effect: each ratio has its own threshold" in result.stderr


def test_recorded_tokens_are_measured(tmp_path) -> None:
    path = tmp_path / "clip.safetensors"
    save_file({"tokens": torch.randn(3, 4, 8).half()}, path)
    options = ["--repeats", "1", "--retention", "0.5", "--device", "cpu", "--width", "16"]
    result = run("bench", "compressor", "--features", str(path), *options)
    (row,) = last_line(result)["rows"]
    assert (row["features"], row["num_frames"], row["width"]) == ("clip.safetensors", 3, 8)
    assert "--tokens-per-frame and --width have no effect on recorded tokens" in result.stderr


def test_tokens_are_recorded_and_measured(tmp_path) -> None:
    path = str(tmp_path / "clip.safetensors")
    result = run("bench", "record", "--output", path, "--frames", "2", "--device", "cpu")
    found = last_line(result)
    assert (found["output"], found["num_frames"], found["width"]) == (path, 2, 192)
    assert f"{path}: 2 x 64 x 192 float16" in result.stdout
    options = ["--repeats", "1", "--retention", "0.25", "--device", "cpu"]
    (row,) = last_line(run("bench", "compressor", "--features", path, *options))["rows"]
    assert row["similarity"] == found["similarity"]
    assert row["tokens"]["kept_at_budget"] == 32


def test_growth_is_measured_with_the_settings_that_are_given(tmp_path) -> None:
    given = ["compression.preset=recommended", "compression.epsilon=0.5", "compression.retention_ratio=0.5"]
    size = ["--frames", "1", "--width", "8", "--device", "cpu", "--out", str(tmp_path)]
    result = run("bench", "growth", *size, *(f"--set={one}" for one in given))
    row = last_line(result)[-1]
    assert row["compression"] == {"preset": "recommended", "temporal_window": 4, "positions": "original"}
    assert (row["tau"], row["retention_ratio"], row["sample_size"], row["kept"]) == (0.785, 0.5, 1024, 98)
    assert "compression.epsilon has no effect: compression.sample_size is used" in result.stderr
    assert "1 thread, " in result.stdout
    assert "CPU time. " in result.stdout


def test_growth_is_measured_once_and_drawn(tmp_path) -> None:
    size = ["--width", "8", "--sample-size", "50", "--device", "cpu", "--out", str(tmp_path)]
    first = last_line(run("bench", "growth", "--frames", "2", *size))
    rows = last_line(run("bench", "growth", "--frames", "2", "--frames", "1", *size))
    assert rows[3:] == first
    assert [row["num_frames"] for row in rows] == [1, 1, 1, 2, 2, 2]
    for name in ("growth_ms_per_frame.png", "growth_peak_bytes.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_an_answer_is_measured() -> None:
    result = run("bench", "model", *SMALL, "--retention", "0.1", "--device", "cpu")
    assert "…" not in result.stdout  # nothing is cut off on a narrow terminal
    report = last_line(result)
    assert report["model"] == "demo"
    assert [row["name"] for row in report["rows"]] == ["all tokens", "scissor 10%"]
    assert [row["tokens"]["kept"] for row in report["rows"]] == [128, 12]


def test_an_answer_is_measured_with_the_method_of_the_settings() -> None:
    settings = ["--set", "compression.method=uniform"]
    report = last_line(run("bench", "model", *SMALL, "--retention", "0.1", "--device", "cpu", *settings))
    assert [row["name"] for row in report["rows"]] == ["all tokens", "uniform 10%"]


def test_flops_of_a_named_size_and_of_a_checkpoint() -> None:
    rows = last_line(run("flops", "--model", "7b", "--retention", "0.1", "--json"))["rows"]
    assert [row["kept"] for row in rows] == [6272, 627]
    assert rows[0]["paper"] == pytest.approx(41.416, abs=0.001)
    assert rows[1]["paper share"] == "9.4%"
    assert rows[1]["share"] == "28.0%"
    shown = run("flops", "--model", "demo")
    assert shown.exit_code == 0
    assert "demo, 8 frames" in shown.stdout
    assert "512" in shown.stdout
    assert "…" not in shown.stdout  # nothing is cut off on a narrow terminal


def test_flops_of_settings(tmp_path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("model: {path: 0.5b}\nvideo: {num_frames: 4}\ncompression: {retention_ratio: 0.25}\n")
    report = last_line(run("flops", "--config", str(settings), "--json"))
    assert (report["model"], report["num_frames"]) == ("0.5b", 4)
    assert [row["kept"] for row in report["rows"]] == [784, 196]
    own = ["--set", "video.num_frames=2", "--set", "compression.method=none"]
    report = last_line(run("flops", "--config", str(settings), *own, "--retention", "0.5", "--json"))
    assert [row["kept"] for row in report["rows"]] == [392, 196]
    report = last_line(run("flops", "--set", "compression.retention_ratio=0.5", "--frames", "2", "--json"))
    assert (report["model"], [row["kept"] for row in report["rows"]]) == ("7b", [392, 196])


def test_pictures_are_written(tmp_path) -> None:
    clip = str(demo_clips()[0].path)
    result = run("visualize", clip, "--out", str(tmp_path / "p"), "--set", "compression.retention_ratio=0.2")
    assert result.exit_code == 0, result.output
    written = [line.rpartition("/")[2] for line in result.stdout.splitlines()]
    assert written == ["sheet.png", "components.mp4", "sizes.png", "stats.json"]
    stats = json.loads((tmp_path / "p" / "stats.json").read_text())
    assert stats["tokens"]["kept"] == 102


def test_all_tokens_alone_are_measured(tmp_path) -> None:
    result = run("eval", "--methods", "none", "--clips", "1", "--device", "cpu", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "none" in result.stdout
    assert (tmp_path / "report.md").read_text().count("##") == 1
    assert not (tmp_path / "accuracy.png").exists()


def test_settings_of_eval_count_or_warn(tmp_path) -> None:
    ratio = ["--set", "compression.retention_ratio=0.25"]
    base = ["--methods", "uniform", "--clips", "1", "--device", "cpu", "--no-plots", "--json"]
    told = run("eval", *base, *ratio, "--out", str(tmp_path))
    assert [row["retention"] for row in last_line(told)["rows"]] == [1.0, 0.25]
    assert "no effect" not in told.stderr
    more = ["--set", "video.num_frames=4", "--set", "compression.epsilon=0.1"]
    told = run("eval", *base, *ratio, *more, "--out", str(tmp_path))
    assert "the sections video, compression (beside retention_ratio; see --methods)\n" in told.stderr


def test_methods_are_measured_and_more_of_them_later(tmp_path) -> None:
    out = tmp_path / "deep"
    base = ["--clips", "2", "--device", "cpu", "--out", str(out), "--json"]
    first = last_line(run("eval", *base, "--methods", "random", "--retention", "0.25,0.5", "--no-plots"))
    assert first == json.loads((out / "summary.json").read_text())
    assert (first["suite"], first["num_clips"], first["model"]) == ("shapes-v1", 2, "demo")
    assert [(row["method"], row["retention"]) for row in first["rows"]] == [
        ("none", 1.0),
        ("random", 0.5),
        ("random", 0.25),
    ]
    assert not (out / "time.png").exists()
    answers = (out / "results.jsonl").read_text()
    more = run("eval", *base[:-1], "--methods", "random, scissor", "--retention", "0.25")
    assert more.exit_code == 0, more.output
    assert (out / "results.jsonl").read_text().startswith(answers)
    assert [line.split()[1] for line in more.stdout.splitlines() if "│" in line] == [
        "none",
        "random",
        "scissor",
    ]
    assert "## Where scissor loses" in (out / "report.md").read_text()
    for name in ("accuracy.png", "time.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    refused = run("eval", *base, "--video-files")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "video_files False there, True now" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "--suite", "v1"], "--suite v1: expected one of shapes-v1,"),
        (["eval", "--methods", "scisor"], "--methods scisor: "),
        (["eval", "--retention", "0.1;0.2"], "--retention 0.1;0.2: expected numbers with commas between"),
        (["eval", "--retention", "0.1,2"], "--retention 2.0: expected a number in (0, 1]"),
        (["eval", "--clips", "401"], "--clips 401: shapes-v1 has 400 clips"),
        (["bench", "compressor", "--retention", "0"], r"--retention 0.0: expected a number in (0, 1]"),
        (["bench", "compressor", "--features", "real"], "--features real: expected made-up, smooth, chains"),
        (
            [
                "bench",
                "compressor",
                "--set",
                "compression.method=tome",
                "--set=compression.retention_ratio=1",
            ],
            "tome",
        ),
        (["bench", "compressor", "--dtype", "int8"], "expected auto, float32, bfloat16 or float16"),
        (
            ["bench", "growth", "--set", "compression.method=none"],
            "bench growth measures 'scissor', got 'none'",
        ),
        (["bench", "growth", "--tau", "2"], "compression.tau"),
        (["bench", "record", "--output", "/nowhere/x"], "there is no folder /nowhere; make it first"),
        (["bench", "record", "--output", "x", "--video", "nowhere.mp4"], "nowhere.mp4"),
        (["bench", "model", "--model", "nowhere"], "nowhere is neither a directory nor a hub id"),
        (["flops", "--model", "3b"], "3b is neither a directory nor a hub id"),
        (["flops", "--retention", "1.5"], "expected a number in (0, 1]"),
        (["visualize", "nowhere.mp4", "--out", "never"], "nowhere.mp4"),
    ],
)
def test_mistakes_are_named(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert result.stdout == ""


def test_a_frame_that_is_no_square_is_refused() -> None:
    result = run("bench", "compressor", *SMALL, "--tokens-per-frame", "15")
    assert result.exit_code == 2
    assert "square number, got 15" in result.stderr
