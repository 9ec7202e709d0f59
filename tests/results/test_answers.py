"""Stored answers, read and compared."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from llava_scissor.errors import InputError
from llava_scissor.results.answers import SuiteAnswer, read_answers
from tests.docs.pages import ROOT, blocks

ANSWER = SuiteAnswer("s", "m", 0.1, 1, "where", "Where?", "top left", "top left", 512, 51, 0.1, 0.2)


def write(path, answers) -> None:
    path.write_text("".join(json.dumps({**asdict(answer), "right": True}) + "\n" for answer in answers))


def test_an_answer_is_right_to_the_letter() -> None:
    assert ANSWER.is_right
    assert not replace(ANSWER, said="top right").is_right


def test_answers_are_read_as_they_were_written(tmp_path) -> None:
    answers = [ANSWER, replace(ANSWER, clip=2, said="no")]
    write(tmp_path / "results.jsonl", answers)
    assert read_answers(tmp_path / "results.jsonl") == answers


def test_rows_that_are_no_answers(tmp_path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"method": "m", "retention": 0.1, "clip": 1}\n')
    with pytest.raises(InputError, match="not a file of answers: no 'suite' in a line"):
        read_answers(path)


def test_comparing_two_directories_costs_no_torch(tmp_path) -> None:
    """As docs/evaluation.md does it; the page of a run costs none, either."""
    (compare,) = (
        code for code in blocks(ROOT / "docs" / "evaluation.md", "python") if "read_answers" in code
    )
    kept = replace(ANSWER, method="scissor")
    for name, answers in (("new", [kept]), ("old", [replace(kept, said="no"), ANSWER])):
        folder = tmp_path / "runs" / "eval" / name
        folder.mkdir(parents=True)
        write(folder / "results.jsonl", answers)
    code = f"{compare}\nimport sys, llava_scissor.suites.report\nprint({{'torch', 'av'}} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, check=True, cwd=tmp_path
    )
    difference, imported = done.stdout.splitlines()
    assert difference.startswith("Estimate(value=1.0, ")
    assert imported == "set()"
