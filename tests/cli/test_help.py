from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from llava_scissor._version import __version__
from llava_scissor.cli import app

HELP = {
    ("--help",): "help.txt",
    ("ask", "--help"): "ask_help.txt",
    ("demo", "--help"): "demo_help.txt",
    ("inspect", "--help"): "inspect_help.txt",
    ("visualize", "--help"): "visualize_help.txt",
    ("flops", "--help"): "flops_help.txt",
    ("eval", "--help"): "eval_help.txt",
    ("bench", "--help"): "bench_help.txt",
    ("bench", "compressor", "--help"): "bench_compressor_help.txt",
    ("bench", "growth", "--help"): "bench_growth_help.txt",
    ("bench", "model", "--help"): "bench_model_help.txt",
}


@pytest.mark.parametrize("arguments", HELP)
def test_the_help_is_pinned(arguments: tuple[str, ...]) -> None:
    result = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(
        app, list(arguments), prog_name="llava-scissor"
    )
    assert result.exit_code == 0
    assert result.stdout == (Path(__file__).parent / HELP[arguments]).read_text(encoding="utf-8")


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"llava-scissor {__version__}\n")


@pytest.mark.parametrize(
    "arguments", [["ask"], ["ask", "--video", "clip.mp4"], ["aks"], ["ask", "--vidoe", "x"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: " in result.stderr
