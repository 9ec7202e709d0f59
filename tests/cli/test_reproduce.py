"""`llava-scissor reproduce` as it is typed; whole runs: tests/integrations/test_lmms_eval_harness.py."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llava_scissor.cli.app import app
from llava_scissor.paper import harness as module

ROOT = Path(__file__).resolve().parents[2]


def call(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, ["reproduce", *arguments])


def rows_of(result: Result) -> list[dict]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])["rows"]


def refusal(*arguments: str) -> str:
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr


def test_what_is_missing_is_said_at_once(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    options = ("--checkpoint", str(tmp_path / "7b"), "--results", str(tmp_path / "out"))
    first, *lines = refusal("--table", "2", *options).splitlines()
    assert first.endswith("experiments/table2.yaml cannot be run yet:")
    assert sum("hf download BBBBCHAN/LLaVA-Scissor-baseline-7B" in line for line in lines) == 1
    assert sum("its videos are not in" in line for line in lines) == 4
    assert not (tmp_path / "out").exists()


def test_flops_are_computed() -> None:
    printed = json.loads(call("--table", "5", "--json").stdout.splitlines()[-1])
    assert list(printed) == ["table", "title", "rows"]
    assert list(printed["rows"][0]) == ["method", "retention", "printed_tflops", "tflops", "note"]
    assert printed["rows"][0]["tflops"] == pytest.approx(41.416, abs=1e-3)


@pytest.mark.parametrize("number", ["1", "4a", "6"])
def test_a_table_without_a_checkpoint_is_the_papers(number) -> None:
    assert rows_of(call("--table", number, "--json"))
    assert f"Table {number}" in call("--table", number).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--table", "9"), "table '9': expected one of"),
        (("--table", "4a", "--checkpoint", "demo"), "table 4a cannot be run: tables 1, 2, 3, 6, 7 can"),
        (
            ("--table", "3", "--checkpoint", "demo", "--only", "ToMe"),
            "expected some of DyCoke, PLLaVA, FastV, VisionZip, LLaVA-Scissor",
        ),
        (("--experiment", "none.yaml", "--checkpoint", "demo"), "none.yaml cannot be read"),
        (("--experiment", "x.yaml"), "--experiment needs --checkpoint"),
        ((), "expected --table or --experiment"),
        (("--table", "5", "--experiment", "x.yaml"), "expected --table or --experiment"),
    ],
)
def test_what_cannot_be_run_is_said(arguments, message) -> None:
    assert message in refusal(*arguments)


@pytest.fixture
def harness(monkeypatch, tmp_path):
    """A harness that answers everything right, but nothing for random tokens; the commands that it got."""
    commands = []

    def run(command, env, stdout):
        commands.append(command[1:])
        assert env["HF_HOME"] == str(tmp_path)
        directory = Path(command[command.index("--output_path") + 1]) / "demo"
        if "method=random" not in " ".join(command):
            directory.mkdir()
            results = {"results": {"shapes_local": {"right,none": 1.0}}}
            (directory / "x_results.json").write_text(json.dumps(results))
            sample = {"doc_id": 0, "right": {"score": 1.0, "video": "a"}}
            (directory / "x_samples_shapes_local.jsonl").write_text(json.dumps(sample) + "\n")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr(module, "find_missing", lambda *_: [])
    return commands


def toy(tmp_path, *more: str) -> list[str]:
    experiment = str(ROOT / "tests" / "paper" / "shapes_experiment.yaml")
    return ["--experiment", experiment, "--checkpoint", "demo", "--results", str(tmp_path / "out"), *more]


def test_what_is_complete_is_not_run_again(harness, tmp_path) -> None:
    for _ in range(2):
        rows = rows_of(call(*toy(tmp_path, "--only", "Scissor", "--json")))
        assert [(row["method"], row["ours"], row["share"]) for row in rows] == [
            ("All", 100, 100),
            ("Scissor", 100, 100),
        ]
    assert len(harness) == 2
    assert " ".join(harness[1]) == (
        "-m lmms_eval --model llava_scissor --model_args pretrained=demo,device=cpu,retention_ratio=0.1 "
        f"--tasks shapes_local --batch_size 4 --log_samples --output_path {tmp_path / 'out' / 'Scissor-10'} "
        "--gen_kwargs max_new_tokens=4"
    )


def test_options_reach_the_harness(harness, tmp_path) -> None:
    options = ("--only", "Scissor", "--processes", "2", "--limit", "5", "--include-path", "tasks")
    result = call(*toy(tmp_path, *options))
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m", "lmms_eval"]
    assert all(command[:7] == launcher for command in harness)
    assert all(command[-4:] == ["--limit", "5", "--include_path", "tasks"] for command in harness)
    assert "100.0" in result.stdout


def test_results_of_another_command_are_not_taken(harness, tmp_path) -> None:
    call(*toy(tmp_path, "--only", "Scissor"))
    told = refusal(*toy(tmp_path, "--only", "Scissor", "--limit", "3"))
    assert "All-100 holds results of other settings (command '-m lmms_eval " in told


def test_a_run_without_results_is_an_error(harness, tmp_path) -> None:
    """The harness ends with code 0 after most errors."""
    told = refusal(*toy(tmp_path))
    assert "Random-2: lmms-eval ended with code 0 and without results" in told
    assert len(harness) == 3
