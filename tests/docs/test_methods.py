"""The page on methods: its snippets and commands run, and its tables have every method."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from llava_scissor.cli.app import app
from llava_scissor.config import METHODS
from tests.docs.pages import README, ROOT, blocks, commands, read

PAGE = ROOT / "docs" / "methods.md"
PYTHON = blocks(PAGE, "python")


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_a_snippet_prints_what_its_comments_say(code: str, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), {"__name__": "__main__"})
    said = re.findall(r"^(?:print\(.*)?\)  # (.+)$", code, re.MULTILINE)
    assert said
    assert capsys.readouterr().out.splitlines() == said


def test_commands_run(monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    for words in commands(PAGE):
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, result.output
        assert "-> 51 (10.0 %)" in result.stdout


@pytest.mark.parametrize(
    ("page", "others"), [(PAGE, {"none", "scissor"}), (README, {"none"})], ids=["methods", "README"]
)
def test_the_table_has_every_method(page, others) -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|.*\|$", read(page), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(set(METHODS) - others)
