"""`llava-scissor inspect` with the shipped model and with broken copies of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llava_scissor.cli.app import app

SHIPPED = Path(__file__).resolve().parents[2] / "llava_scissor" / "demo" / "model"


def inspect(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, ["inspect", *map(str, arguments)])


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    directory = tmp_path / "broken"
    shutil.copytree(SHIPPED, directory)
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    return directory


def test_a_table_for_people() -> None:
    result = inspect("demo")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if line[0] != " ")
    assert rows["kind"].rstrip() == "LLaVA-OneVision, original layout"
    assert rows["problems"].rstrip() == "none"


def test_one_object_for_programs() -> None:
    result = inspect("demo", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["num_parameters"]["total"] == 2_254_720
    assert report["problems"] == []


def test_a_broken_checkpoint_has_the_same_report_its_problems_and_exit_code_1(broken: Path) -> None:
    result = inspect(broken, "--json")
    assert result.exit_code == 1
    report, whole = json.loads(result.stdout), json.loads(inspect("demo", "--json").stdout)
    assert report.keys() == whole.keys()
    assert report["vision"] == whole["vision"]
    (problem,) = report["problems"]
    assert "model.safetensors is truncated or not a safetensors file" in problem
    table = inspect(broken)
    assert table.exit_code == 1
    assert "is truncated" in " ".join(table.stdout.split())


def test_a_path_that_leads_nowhere_is_one_message(tmp_path: Path) -> None:
    result = inspect(tmp_path / "nowhere")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")


def test_no_decoder_and_no_generation_is_imported() -> None:
    code = (
        "import sys; from llava_scissor.cli.app import app; app(['inspect', 'demo'], standalone_mode=False); "
    )
    code += "print(sorted({'av', 'decord', 'llava_scissor.generation'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
