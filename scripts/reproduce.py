"""Print a table of the paper, and what can be computed about it: `python scripts/reproduce.py --table 5`.

Table 5 (FLOPs) is computed from the paper's equations. Of the others the averages are computed again; with
--checkpoint what configs/paper has for the table is run through lmms-eval, and ours stand beside the paper's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from llava_scissor.errors import ScissorError
from llava_scissor.paper.tables import read_table, recompute_averages, reproduce_flops, table_numbers

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "paper"
HF_HOME = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()


def main() -> None:
    """Parse the options and print the table, or one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--table", choices=table_numbers(), help="number in the paper")
    subject.add_argument("--experiment", type=Path, help="a file like those in configs/paper")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    run = parser.add_argument_group("to run it")
    run.add_argument("--checkpoint", help="directory of the model, or demo")
    run.add_argument("--results", type=Path, help="directory for results; those there are not computed again")
    run.add_argument(
        "--only", nargs="+", metavar="METHOD", help="methods beside the full model; default: all"
    )
    run.add_argument("--processes", type=int, default=1, help="number of GPUs, each with a copy of the model")
    run.add_argument("--limit", type=int, help="documents of each task, for a trial")
    run.add_argument("--include-path", help="directory with more tasks for lmms-eval")
    options = parser.parse_args()
    if options.experiment and not options.checkpoint:
        parser.error("--experiment needs --checkpoint")
    try:
        title, rows = reproduce(options) if options.checkpoint else show(options.table)
    except ScissorError as error:
        sys.exit(f"error: {error}")
    if options.json:
        print(json.dumps({"table": options.table, "title": title, "rows": rows}))
        return
    shown = Table(*rows[0], title=f"Table {options.table}: {title}" if options.table else title)
    for row in rows:
        values = (round(value, 3) if isinstance(value, float) else value for value in row.values())
        shown.add_row(*("" if value is None else str(value) for value in values))
    Console().print(shown)


def show(number: str) -> tuple[str, list[dict]]:
    """Return a table as printed, with what is computed from it."""
    table = read_table(number)
    if number == "5":
        return table.title, reproduce_flops()
    again = {id(row): {"recomputed": round(mean, 2)} for row, _, mean in recompute_averages(table)}
    return table.title, [{**row, **again.get(id(row), {}), "note": table.doubts(row)} for row in table.rows]


def reproduce(options: argparse.Namespace) -> tuple[str, list[dict]]:
    """Run an experiment, as far as it has not been, and return ours beside the paper's."""
    from llava_scissor.paper.reproduction import compare, find_missing, load_experiment

    path = options.experiment or CONFIGS / f"table{options.table}.yaml"
    if options.table and not path.exists():
        there = ", ".join(sorted(file.stem.removeprefix("table") for file in CONFIGS.glob("table*.yaml")))
        sys.exit(f"error: table {options.table} cannot be run: tables {there} can, see docs/reproduce.md")
    experiment = load_experiment(path)
    full, *others = experiment.runs
    runs = [full, *(run for run in others if run.method in (options.only or [run.method]))]
    if len(runs) == 1:
        sys.exit(f"error: --only: expected some of {', '.join(dict.fromkeys(run.method for run in others))}")
    if missing := find_missing(experiment, options.checkpoint, HF_HOME):
        sys.exit("\n".join([f"error: {path} cannot be run yet:", *(f"- {what}" for what in missing)]))
    results = options.results or Path("runs", "paper", path.stem)
    directories = [run_harness(experiment, run, results, options) for run in runs]
    title = f"{options.checkpoint}; share: percent of {full.method} in the same run"
    return title, compare(experiment, runs, directories)


def run_harness(experiment, run, results: Path, options: argparse.Namespace) -> Path:
    """Call lmms-eval, unless its results are there; return their directory."""
    directory = results / f"{run.method}-{run.retention:g}".replace(" ", "_")
    model_args = {"pretrained": options.checkpoint, **experiment.model_args, **run.model_args}
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(options.processes), "-m"]
    command = ["-m", *(launcher if options.processes > 1 else []), "lmms_eval", "--model", "llava_scissor"]
    command += ["--model_args", arguments(model_args), "--tasks", ",".join(experiment.tasks)]
    command += ["--batch_size", str(experiment.batch_size), "--log_samples", "--output_path", str(directory)]
    command += ["--gen_kwargs", arguments(experiment.generation)] if experiment.generation else []
    command += ["--limit", str(options.limit)] if options.limit else []
    command += ["--include_path", options.include_path] if options.include_path else []
    written = directory / "command.json"
    if written.exists() and json.loads(written.read_text(encoding="utf-8")) != command:
        sys.exit(f"error: {directory} holds results of another command, see {written}: give other --results")
    directory.mkdir(parents=True, exist_ok=True)
    written.write_text(json.dumps(command), encoding="utf-8")
    if not list(directory.rglob("*_results.json")):
        environment = {**os.environ, "HF_HOME": str(HF_HOME)}  # some tasks fail without
        code = subprocess.run([sys.executable, *command], env=environment, stdout=sys.stderr).returncode
        if not list(directory.rglob("*_results.json")):  # the code is 0 after most errors
            sys.exit(f"error: {directory}: lmms-eval ended with code {code} and without results, see above")
    return directory


def arguments(values: dict) -> str:
    """Write settings as lmms-eval reads them."""
    return ",".join(f"{key}={value}" for key, value in values.items())


if __name__ == "__main__":
    main()
