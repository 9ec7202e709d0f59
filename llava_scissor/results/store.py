"""Results in a folder: rows that a stopped run goes on with, and the settings that they were made with."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava_scissor.errors import InputError

logger = logging.getLogger(__name__)

Row = dict[str, Any]


class ResultStore:
    """A folder with the results of one run, which may stop and go on.

    `settings.json` says what the results depend on. `results.jsonl` has one row a line. The rows of one task, such
    as a clip with a method, are written together: after an interruption, a task is there with all its rows or not
    at all.

    Attributes:
        path: of the file with the rows.
        rows: the stored rows, oldest first.
        done: the tasks that are stored, each as the values of its fields.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], task: Sequence[str]) -> None:
        """Open a folder of results, or make one.

        Args:
            folder: of the run.
            settings: what the results depend on, as JSON can hold it.
            task: names of the fields of a row that say which task it belongs to.

        Raises:
            InputError: the folder holds results of other settings, or something else.
        """
        self.path = folder / "results.jsonl"
        self._task = task
        if self.path.exists() and not (folder / "settings.json").exists():
            raise InputError(f"{self.path} has no settings.json beside it: give another directory")
        check_settings(folder, settings)
        self.path.touch()
        self.rows = read_rows(self.path, task)
        lines = self.path.read_bytes().splitlines(keepends=True)
        os.truncate(self.path, sum(map(len, lines[: len(self.rows)])))
        self.done = {self._task_of(row) for row in self.rows}

    def append(self, rows: Iterable[Row]) -> None:
        """Store all rows of one task."""
        rows = list(rows)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        with self.path.open("ab") as file:
            file.write(lines.encode())
        self.rows += rows
        self.done |= {self._task_of(row) for row in rows}

    def _task_of(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in self._task)


def read_rows(path: Path, task: Sequence[str]) -> list[Row]:
    """Read stored rows; nothing is written.

    If the last line was cut off, the whole task that it belongs to is left out, with a warning.

    Args:
        path: of a file of JSON lines.
        task: names of the fields that say which task a row belongs to.

    Raises:
        InputError: a line is not such a row.
    """
    *lines, rest = path.read_bytes().split(b"\n")
    try:
        rows = [json.loads(line) for line in lines]
        tasks = [[row[name] for name in task] for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is not a file of results: {error!r}; give another one") from error
    if not rest:
        return rows
    logger.warning("%s ends in the middle of a line: its last task is left out, and done again", path)
    last = tasks[-1] if tasks else None
    while tasks and tasks[-1] == last:
        tasks.pop()
    return rows[: len(tasks)]


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Store what the results of a folder depend on; where that is stored already, compare.

    Args:
        folder: made if it is not there.
        settings: as JSON can hold them.

    Raises:
        InputError: the results that are there were made with other settings.
    """
    path = folder / "settings.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return
    try:
        there = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} does not hold settings: {error}; give another directory") from error
    now = json.loads(json.dumps(settings))
    differing = [
        f"{key} {there.get(key)!r} there, {now.get(key)!r} now"
        for key in {**there, **now}
        if there.get(key) != now.get(key)
    ]
    if differing:
        raise InputError(
            f"{folder} holds results of other settings ({'; '.join(differing)}): give another directory, or the "
            "settings of before"
        )
