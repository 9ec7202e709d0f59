"""`llava-scissor inspect`: what a checkpoint is."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llava_scissor.cli.console import OTHER_MISTAKE, diagnostics
from llava_scissor.cli.options import Json


def inspect(
    path: Annotated[str, typer.Argument(help="Checkpoint: a directory, a Hugging Face hub id, or demo.")],
    use_json: Json = False,
) -> None:
    """Say what a checkpoint is and what of it would be loaded, without loading it."""
    with diagnostics():
        from llava_scissor.model.inspection import as_rows, inspect_checkpoint  # imports torch

        found = inspect_checkpoint(path)
        if use_json:
            typer.echo(json.dumps(asdict(found), allow_nan=False))
        else:
            table = Table.grid(padding=(0, 2))
            for name, text in as_rows(found):
                table.add_row(Text(name, style="bold"), Text(text, overflow="fold"))
            Console(highlight=False).print(table)
        if found.problems:
            raise typer.Exit(OTHER_MISTAKE)
