"""scripts/reproduce.py as it is typed; the runs themselves are in tests/integrations/test_lmms_eval_harness.py."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from llava_scissor.paper import reproduction

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "reproduce.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("reproduce", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(script, monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *arguments])
    script.main()


def test_what_is_missing_is_said_at_once(script, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(script, "HF_HOME", tmp_path)
    options = ("--checkpoint", str(tmp_path / "7b"), "--results", str(tmp_path / "out"))
    with pytest.raises(SystemExit) as caught:
        call(script, monkeypatch, "--table", "2", *options)
    first, *lines = str(caught.value).splitlines()
    assert first.endswith("configs/paper/table2.yaml cannot be run yet:")
    assert sum("hf download BBBBCHAN/LLaVA-Scissor-baseline-7B" in line for line in lines) == 1
    assert sum("its videos are not in" in line for line in lines) == 4
    assert not (tmp_path / "out").exists()


def test_flops_are_computed_as_before(script, monkeypatch, capsys) -> None:
    call(script, monkeypatch, "--table", "5", "--json")
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(printed) == ["table", "title", "rows"]
    assert list(printed["rows"][0]) == ["method", "retention", "printed_tflops", "tflops", "note"]
    assert printed["rows"][0]["tflops"] == pytest.approx(41.416, abs=1e-3)


@pytest.mark.parametrize("number", ["1", "4a", "6"])
def test_a_table_without_a_checkpoint_is_the_papers(number, script, monkeypatch, capsys) -> None:
    call(script, monkeypatch, "--table", number, "--json")
    assert json.loads(capsys.readouterr().out)["rows"]
    call(script, monkeypatch, "--table", number)
    assert f"Table {number}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--table", "4a", "--checkpoint", "demo"), "table 4a cannot be run: tables 1, 2, 3, 6, 7 can"),
        (
            ("--table", "3", "--checkpoint", "demo", "--only", "ToMe"),
            "expected some of DyCoke, PLLaVA, FastV, VisionZip, LLaVA-Scissor",
        ),
        (("--experiment", "none.yaml", "--checkpoint", "demo"), "none.yaml cannot be read"),
    ],
)
def test_what_cannot_be_run_is_said(arguments, message, script, monkeypatch) -> None:
    with pytest.raises(SystemExit) as caught:
        call(script, monkeypatch, *arguments)
    assert message in str(caught.value)


def test_an_experiment_needs_a_checkpoint(script, monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit):
        call(script, monkeypatch, "--experiment", "x.yaml")
    assert "--experiment needs --checkpoint" in capsys.readouterr().err


@pytest.fixture
def harness(script, monkeypatch, tmp_path):
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

    monkeypatch.setattr(script.subprocess, "run", run)
    monkeypatch.setattr(script, "HF_HOME", tmp_path)
    monkeypatch.setattr(reproduction, "find_missing", lambda *_: [])
    return commands


def toy(tmp_path, *more: str) -> list[str]:
    experiment = str(ROOT / "tests" / "paper" / "shapes_experiment.yaml")
    return ["--experiment", experiment, "--checkpoint", "demo", "--results", str(tmp_path / "out"), *more]


def test_what_is_complete_is_not_run_again(harness, script, monkeypatch, capsys, tmp_path) -> None:
    for _ in range(2):
        call(script, monkeypatch, *toy(tmp_path, "--only", "Scissor", "--json"))
        rows = json.loads(capsys.readouterr().out)["rows"]
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


def test_options_reach_the_harness(harness, script, monkeypatch, capsys, tmp_path) -> None:
    options = ("--only", "Scissor", "--processes", "2", "--limit", "5", "--include-path", "tasks")
    call(script, monkeypatch, *toy(tmp_path, *options))
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m", "lmms_eval"]
    assert all(command[:7] == launcher for command in harness)
    assert all(command[-4:] == ["--limit", "5", "--include_path", "tasks"] for command in harness)
    assert "100.0" in capsys.readouterr().out


def test_results_of_another_command_are_not_taken(harness, script, monkeypatch, tmp_path) -> None:
    call(script, monkeypatch, *toy(tmp_path, "--only", "Scissor"))
    with pytest.raises(SystemExit, match="All-100 holds results of another command"):
        call(script, monkeypatch, *toy(tmp_path, "--only", "Scissor", "--limit", "3"))


def test_a_run_without_results_is_an_error(harness, script, monkeypatch, tmp_path) -> None:
    """The harness ends with code 0 after most errors."""
    with pytest.raises(SystemExit, match="Random-2: lmms-eval ended with code 0 and without results"):
        call(script, monkeypatch, *toy(tmp_path))
    assert len(harness) == 3
