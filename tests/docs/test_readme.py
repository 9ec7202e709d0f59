"""Everything that README tells the reader to type."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml
from typer.testing import CliRunner

from llava_scissor.cli import ask as ask_command
from llava_scissor.cli.app import app
from llava_scissor.config import load_config
from tests.docs.pages import README, ROOT, blocks, code_spans, commands, prose, read

PYTHON = blocks(README, "python")
COMMANDS = commands(README)
ASKING = [c[1:] for c in COMMANDS if c[:2] == ["llava-scissor", "ask"]]
ASKING += [["ask", *c[2:]] for c in COMMANDS if c[:2] == ["python", "scripts/infer.py"]]
KNOWN = {"make", "pip", "python", ".venv/bin/pip", "llava-scissor"}


class Reached(Exception):
    """The command got as far as the model."""


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)


def settings_of(command: list[str], monkeypatch):
    """The settings with which a command would ask the model."""

    def stop(config, options):
        raise Reached(config)

    monkeypatch.setattr(ask_command, "_open_session", stop)
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, Reached), result.output
    return result.exception.args[0]


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_runs_and_prints_what_its_comments_say(code: str, capsys) -> None:
    exec(compile(code, str(README), "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    for said in re.findall(r"print\(.*\)  # ((?:\d|torch\.Size).*)", code):
        assert said.removesuffix(" each time") in printed


def test_there_is_something_of_each_kind() -> None:
    assert len(PYTHON) >= 3
    assert len(ASKING) >= 2
    assert {words[0] for words in COMMANDS} <= KNOWN, "a kind of command that no test here looks at"


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
def test_asking(command: list[str], monkeypatch) -> None:
    """Commands for the shipped model run; those for other checkpoints run up to where these are loaded."""
    with monkeypatch.context() as patch:
        config = settings_of(command, patch)
    if config.model.path != "demo":
        return
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    shown = next((text for text in blocks(README, "text") if re.search(r"^tokens ", text, re.MULTILINE)), "")
    answer, *lines = result.stdout.splitlines()
    assert shown.splitlines()[0] == answer
    for name in ("frames", "tokens"):
        counts = [
            re.findall(rf"^{name} +([\d,]+) .*?([\d,]+)", text, re.MULTILINE)
            for text in (shown, "\n".join(lines))
        ]
        assert counts[0] == counts[1], f"{name} in README and in a run"


def test_the_output_of_the_demo_is_about_the_shipped_clips() -> None:
    from llava_scissor.demo.clips import demo_clips

    (shown,) = (text for text in blocks(README, "text") if "visual tokens" in text)
    assert shown.startswith("question ")
    for clip in demo_clips():
        assert f"{clip.path.name}: 512 / 128 / 51 of 512 visual tokens" in shown
        rows = shown.partition(f"{clip.path.name}:")[2]
        for question in clip.questions:
            assert re.search(rf"^{re.escape(question.text)} +{question.answer} ", rows, re.MULTILINE)
    assert re.search(r"^right +\d+ of \d+ +\d+ of \d+ +\d+ of \d+$", shown, re.MULTILINE)


def test_options_in_the_text_exist() -> None:
    result = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(app, ["ask", "--help"])
    named = {span for span in code_spans(README) if re.fullmatch(r"--[a-z-]+", span)}
    assert named
    assert named <= set(re.findall(r"--[a-z-]+", result.stdout))


def test_yaml_can_be_loaded(tmp_path) -> None:
    for text in blocks(README, "yaml"):
        path = tmp_path / "settings.yaml"
        path.write_text(text, encoding="utf-8")
        assert load_config(path).model_fields_set == set(yaml.safe_load(text))


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), re.MULTILINE))
    called = {words[1] for words in COMMANDS if words[0] == "make"}
    assert {"demo", "test"} <= called <= targets
    assert set(re.findall(r"`make (\w+)`", prose(README))) <= targets


def test_extras_exist() -> None:
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    named = set(re.findall(r"\.\[(\w+)\]", read(README)))
    assert named == set(project["optional-dependencies"]) - {"dev"}


def test_files_of_pip_commands_exist() -> None:
    for words in COMMANDS:
        if "-c" in words and "pip" in words[0]:
            assert (ROOT / words[words.index("-c") + 1]).is_file()
