"""What every command shares: the log on stderr, and errors as one line and an exit code."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llava_scissor.errors import ConfigError, InputError, ScissorError

USAGE_MISTAKE = 2
OTHER_MISTAKE = 1


class _ConsoleHandler(logging.Handler):
    """Shows log records on a rich console, one unwrapped line each."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        is_alarming = record.levelno >= logging.WARNING
        prefix = f"{record.levelname.lower()}: " if is_alarming else ""
        self._console.print(Text(prefix + record.getMessage(), style="yellow" if is_alarming else "dim"))


@contextmanager
def diagnostics(is_verbose: bool = False, is_quiet: bool = False) -> Iterator[None]:
    """Show the package's log on stderr; turn a `ScissorError` into one message and an exit code."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    handler = _ConsoleHandler(console)
    package_logger = logging.getLogger("llava_scissor")
    previous_level = package_logger.level
    package_logger.addHandler(handler)
    package_logger.setLevel(logging.DEBUG if is_verbose else logging.ERROR if is_quiet else logging.INFO)
    try:
        yield
    except ScissorError as error:
        console.print(Text(f"error: {error}", style="red"))
        is_usage_mistake = isinstance(error, (ConfigError, InputError))
        raise typer.Exit(USAGE_MISTAKE if is_usage_mistake else OTHER_MISTAKE) from None
    finally:
        package_logger.removeHandler(handler)
        package_logger.setLevel(previous_level)


def turned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make columns of rows, named by their first value: many figures of few things fit a narrow terminal."""
    first, *labels = rows[0]
    return [{"": label, **{row[first]: row[label] for row in rows}} for label in labels]


def print_table(title: str, rows: Iterable[dict[str, Any]]) -> None:
    """Print rows with the same columns; the first one has no name."""
    rows = list(rows)
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "" else "right")
    for row in rows:
        cells = (f"{v:.2f}" if isinstance(v, float) else "" if v is None else str(v) for v in row.values())
        table.add_row(*cells)
    Console(highlight=False).print(table)


def machine_line(report: dict[str, Any]) -> str:
    """Return what a bench ran on, as a title says it."""
    machine = report["machine"]
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    return f"{machine['device']}, {threads}, torch {machine['torch']}"


def clock_line(clock: str) -> str:
    """Return which seconds a bench shows, `cpu` or `wall`, and why."""
    if clock == "cpu":
        return "CPU time. Several threads would wait for cores that other programs use; one does not."
    return "Wall time. It is right only while nothing else runs."


def mebibytes(count: int | None) -> str:
    """Return a number of bytes in MiB, or nothing where it was not measured."""
    return "" if count is None else f"{count / 2**20:.0f}"
