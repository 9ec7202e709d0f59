"""Stored answers to the questions of a suite."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from llava_scissor.errors import InputError
from llava_scissor.results.store import Row, read_rows

Method = tuple[str, float]
"""Name of a compressor with its settings, and its retention ratio."""

ALL_TOKENS: Method = ("none", 1.0)
"""What every run begins with."""

ANSWER_TASK = ("method", "retention", "clip")
"""Fields that say which answers are given together."""


@dataclass(frozen=True)
class SuiteAnswer:
    """One answer to one question, as it is stored.

    Attributes:
        suite: name of the suite.
        method: name of the compressor and its settings.
        retention: retention ratio that it was given.
        clip: number of the clip.
        kind: type of the question.
        question: its text.
        expected: the right answer.
        said: what the model said.
        num_input: visual tokens of the clip.
        num_kept: visual tokens that the model was given.
        compression_s: seconds that the compressor took for the clip.
        answer_s: seconds that the language model took for all questions about the clip.
    """

    suite: str
    method: str
    retention: float
    clip: int
    kind: str
    question: str
    expected: str
    said: str
    num_input: int
    num_kept: int
    compression_s: float
    answer_s: float

    @property
    def is_right(self) -> bool:
        """Whether the answer is the expected one to the letter."""
        return self.said == self.expected


_FIELDS = [field.name for field in fields(SuiteAnswer)]


def read_answers(path: Path) -> list[SuiteAnswer]:
    """Read the answers of a run, `results.jsonl` in its folder.

    Raises:
        InputError: a line is not such an answer.
    """
    return parse_answers(read_rows(path, ANSWER_TASK), path)


def parse_answers(rows: Iterable[Row], path: Path) -> list[SuiteAnswer]:
    """Make answers of stored rows; a row may hold more than an answer.

    Raises:
        InputError: a field is missing in a row of this file.
    """
    try:
        return [SuiteAnswer(**{name: row[name] for name in _FIELDS}) for row in rows]
    except KeyError as error:
        raise InputError(
            f"{path} is not a file of answers: no {error} in a line; give another one"
        ) from error
