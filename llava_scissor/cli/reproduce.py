"""`llava-scissor reproduce`: a table of the paper, as printed, computed again, or run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from llava_scissor.cli.console import diagnostics
from llava_scissor.cli.options import Json


def reproduce(
    table: Annotated[str | None, typer.Option(metavar="NUMBER", help="Number in the paper.")] = None,
    experiment: Annotated[
        Path | None, typer.Option(help="A file of runs of your own, instead of --table.")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Run it through lmms-eval: directory of the model, or demo.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Directory for results; those there are not computed again.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="METHOD", help="Method beside the full model; repeatable.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Number of GPUs, each with a copy of the model.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Documents of each task, for a trial.")] = None,
    include_path: Annotated[str | None, typer.Option(help="Directory with more tasks for lmms-eval.")] = None,
    use_json: Json = False,
) -> None:
    """Print a table of the paper with its figures computed again, or run it and print both."""
    if (table is None) == (experiment is None):
        raise typer.BadParameter("expected --table or --experiment")
    if experiment is not None and checkpoint is None:
        raise typer.BadParameter("--experiment needs --checkpoint")
    with diagnostics():
        if checkpoint is None:
            title, rows = _show(str(table))
        else:
            from llava_scissor.paper.harness import HarnessOptions, find_experiment, run_experiment

            options = HarnessOptions(checkpoint, results, tuple(only or ()), processes, limit, include_path)
            title, rows = run_experiment(experiment or find_experiment(str(table)), options)
        if use_json:
            typer.echo(json.dumps({"table": table, "title": title, "rows": rows}))
        else:
            _print(f"Table {table}: {title}" if table else title, rows)


def _show(number: str) -> tuple[str, list[dict[str, Any]]]:
    """Return a table as printed, with what is computed from it."""
    from llava_scissor.paper.tables import read_table, recompute_averages, reproduce_flops  # imports torch

    table = read_table(number)
    if number == "5":
        return table.title, reproduce_flops()
    again = {id(row): {"recomputed": round(mean, 2)} for row, _, mean in recompute_averages(table)}
    return table.title, [{**row, **again.get(id(row), {}), "note": table.doubts(row)} for row in table.rows]


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    shown = Table(*rows[0], title=title)
    for row in rows:
        values = (round(value, 3) if isinstance(value, float) else value for value in row.values())
        shown.add_row(*("" if value is None else str(value) for value in values))
    Console().print(shown)
