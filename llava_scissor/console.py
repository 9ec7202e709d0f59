"""What every command shares: the log on stderr, and errors as one line and an exit code."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
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
def diagnostics(is_verbose: bool, is_quiet: bool) -> Iterator[None]:
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
