"""The snippets of docs/asking.md, run one after the other, and its commands."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from llava_scissor.cli.app import app
from tests.docs.pages import ROOT, blocks, code_spans, commands

PAGE = ROOT / "docs" / "asking.md"
PYTHON = blocks(PAGE, "python")


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_a_snippet_prints_what_its_comments_say(code: str, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(code, str(PAGE), "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out.splitlines()
    said = re.findall(r"^ *(?:print\(.*)?\)  # (.+)$", code, re.MULTILINE)
    assert said
    assert [line for line in printed if line in said] == said


def test_commands_run(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    asking = [words[1:] for words in commands(PAGE) if words[0] == "llava-scissor"]
    assert asking
    for words in asking:
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        assert result.stdout.splitlines()[:4] == [
            *("What color is the cross?", "cyan", "What is the background?", "stripes"),
        ]


def test_options_in_the_text_exist() -> None:
    result = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(app, ["ask", "--help"])
    named = {span for span in code_spans(PAGE) if re.fullmatch(r"--[a-z-]+", span)}
    assert len(named) > 3
    assert named <= set(re.findall(r"--[a-z-]+", result.stdout))
