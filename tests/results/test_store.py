"""A folder of results: continued, cut off, and refused where it belongs to something else."""

from __future__ import annotations

import json
import logging

import pytest

from llava_scissor.errors import InputError
from llava_scissor.results.store import ResultStore, check_settings, read_rows

SETTINGS = {"suite": "s", "seeds": (1, 2)}
FIRST, SECOND = ([{"clip": clip, "n": n} for n in range(3)] for clip in (0, 1))
LENGTH = len(json.dumps(SECOND[0]))


def opened(folder, **settings) -> ResultStore:
    return ResultStore(folder, SETTINGS | settings, ["clip"])


def test_a_run_goes_on_where_it_stopped(tmp_path) -> None:
    store = opened(tmp_path / "deep" / "run")
    assert (store.rows, store.done) == ([], set())
    store.append(FIRST)
    again = opened(tmp_path / "deep" / "run")
    assert (again.rows, again.done) == (FIRST, {(0,)})
    again.append(iter(SECOND))
    assert (again.rows, again.done) == ([*FIRST, *SECOND], {(0,), (1,)})
    assert read_rows(again.path, ["clip"]) == again.rows
    assert [json.loads(line) for line in again.path.read_text().splitlines()] == again.rows


@pytest.mark.parametrize("num_left", [1, LENGTH, LENGTH + 2, 2 * LENGTH + 1, 3 * LENGTH + 2])
def test_a_task_is_there_with_all_its_rows_or_not_at_all(num_left, tmp_path, caplog) -> None:
    """Wherever within a line the writing of the second task stops."""
    store = opened(tmp_path)
    store.append(FIRST)
    size = store.path.stat().st_size
    store.append(SECOND)
    written = store.path.read_bytes()[: size + num_left]
    store.path.write_bytes(written)
    with caplog.at_level(logging.WARNING):
        rows = read_rows(store.path, ["clip"])
    assert "in the middle of a line" in caplog.text
    assert store.path.read_bytes() == written, "reading changes nothing"
    assert rows == ([] if num_left <= LENGTH else FIRST)  # a cut line does not say which task it belongs to
    again = opened(tmp_path)
    assert again.rows == rows
    again.append(SECOND)
    assert opened(tmp_path).rows == [*rows, *SECOND]


def test_a_file_with_nothing_but_a_cut_line(tmp_path) -> None:
    opened(tmp_path).path.write_text('{"cl')
    assert opened(tmp_path).rows == []
    assert opened(tmp_path).path.read_text() == ""


@pytest.mark.parametrize("text", ["words\n", "[1]\n", '{"answer": 1}\n', "\n", "1\n"])
def test_a_file_of_something_else(text, tmp_path) -> None:
    path = opened(tmp_path).path
    path.write_text(text)
    with pytest.raises(InputError, match="not a file of results"):
        opened(tmp_path)
    assert path.read_text() == text


def test_results_of_other_settings_are_not_mixed(tmp_path) -> None:
    opened(tmp_path, more=None)
    with pytest.raises(InputError, match=r"other settings \(suite 's' there, 't' now\): give another dir"):
        opened(tmp_path, more=None, suite="t")
    with pytest.raises(InputError, match=r"seeds \[1, 2\] there, \[1, 3\] now; old None there, 1 now"):
        opened(tmp_path, more=None, seeds=(1, 3), old=1)
    opened(tmp_path, more=None)


def test_results_without_settings_are_not_continued(tmp_path) -> None:
    store = opened(tmp_path)
    store.append(FIRST)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(InputError, match=r"results\.jsonl has no settings\.json beside it"):
        opened(tmp_path)


@pytest.mark.parametrize("text", ["[1]", "{", "3"])
def test_settings_that_are_none(text, tmp_path) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(InputError, match="does not hold settings"):
        check_settings(tmp_path, SETTINGS)
