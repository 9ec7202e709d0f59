"""Help texts, the version, and wrong usage."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
import typer
from typer.testing import CliRunner

from llava_scissor._version import __version__
from llava_scissor.cli.app import app

ROOT = typer.main.get_command(app)


def all_commands(command: click.Command, name: str = "llava-scissor") -> dict[str, click.Command]:
    """Return a command and those below it, by what is typed."""
    below = command.commands.items() if isinstance(command, click.Group) else ()
    return {name: command} | {k: v for n, c in below for k, v in all_commands(c, f"{name} {n}").items()}


COMMANDS = all_commands(ROOT)


@pytest.mark.parametrize("typed", COMMANDS)
def test_every_option_is_named_with_a_sentence(typed: str) -> None:
    words = typed.split()[1:]
    result = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    for option in COMMANDS[typed].params:
        sentence = getattr(option, "help", None)
        assert sentence, option.name
        assert sentence.endswith("."), sentence
        assert option.opts[0] in result.stdout or option.name.upper() in result.stdout
        assert sentence.split(";")[0][:60] in result.stdout


@pytest.mark.parametrize(
    "command", ["--help", "ask --help", "eval --help", "bench compressor --help", "--version"]
)
def test_help_costs_no_torch(command: str) -> None:
    code = (
        "import sys; from llava_scissor.cli.app import app; app(sys.argv[1:], standalone_mode=False); "
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()], text=True, capture_output=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


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
