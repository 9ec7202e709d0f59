"""The runs of an experiment: each is one call of lmms-eval, and none whose results are there is repeated."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from llava_scissor.errors import ConfigError, InputError
from llava_scissor.paper.reproduction import Experiment, Run, compare, find_missing, load_experiment
from llava_scissor.results.store import check_settings

EXPERIMENTS = Path(str(files("llava_scissor.paper") / "experiments"))


@dataclass(frozen=True)
class HarnessOptions:
    """How an experiment is run.

    Attributes:
        checkpoint: directory of the model, or `demo`.
        results: directory for results; None for `runs/paper/NAME`.
        only: methods beside the full model; empty for all.
        num_processes: number of GPUs, each with a copy of the model.
        limit: documents of each task, for a trial; None for all.
        include_path: directory with more tasks for lmms-eval.
    """

    checkpoint: str
    results: Path | None = None
    only: tuple[str, ...] = ()
    num_processes: int = 1
    limit: int | None = None
    include_path: str | None = None


def find_experiment(number: str) -> Path:
    """Return the file of the experiment for a table of the paper.

    Raises:
        ConfigError: there is none for that table.
    """
    path = EXPERIMENTS / f"table{number}.yaml"
    if not path.exists():
        there = ", ".join(sorted(file.stem.removeprefix("table") for file in EXPERIMENTS.glob("table*.yaml")))
        raise ConfigError(f"table {number} cannot be run: tables {there} can, see docs/reproduce.md")
    return path


def run_experiment(path: Path, options: HarnessOptions) -> tuple[str, list[dict[str, Any]]]:
    """Run an experiment, as far as it has not been.

    Returns:
        A title, and ours beside the paper's as `compare` returns it.

    Raises:
        ConfigError: the file is no experiment, or it has none of the chosen methods.
        InputError: something that it needs is missing, or lmms-eval left no results.
    """
    experiment = load_experiment(path)
    full, *others = experiment.runs
    runs = [full, *(run for run in others if not options.only or run.method in options.only)]
    if len(runs) == 1:
        raise ConfigError(
            f"--only: expected some of {', '.join(dict.fromkeys(run.method for run in others))}"
        )
    if missing := find_missing(experiment, options.checkpoint, _hf_home()):
        raise InputError("\n".join([f"{path} cannot be run yet:", *(f"- {what}" for what in missing)]))
    results = options.results or Path("runs", "paper", path.stem)
    directories = [run_harness(experiment, run, results, options) for run in runs]
    title = f"{options.checkpoint}; share: percent of {full.method} in the same run"
    return title, compare(experiment, runs, directories)


def run_harness(experiment: Experiment, run: Run, results: Path, options: HarnessOptions) -> Path:
    """Call lmms-eval, unless its results are there; return their directory.

    Raises:
        InputError: the directory holds results of another command, or lmms-eval left none.
    """
    directory = results / f"{run.method}-{run.retention:g}".replace(" ", "_")
    command = _command(experiment, run, directory, options)
    check_settings(directory, {"command": shlex.join(command)})
    if not list(directory.rglob("*_results.json")):
        environment = {**os.environ, "HF_HOME": str(_hf_home())}  # some tasks fail without
        code = subprocess.run([sys.executable, *command], env=environment, stdout=sys.stderr).returncode
        if not list(directory.rglob("*_results.json")):  # the code is 0 after most errors
            raise InputError(f"{directory}: lmms-eval ended with code {code} and without results, see above")
    return directory


def _command(experiment: Experiment, run: Run, directory: Path, options: HarnessOptions) -> Sequence[str]:
    model_args = {"pretrained": options.checkpoint, **experiment.model_args, **run.model_args}
    processes = str(options.num_processes)
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", processes, "-m"]
    command = [
        "-m",
        *(launcher if options.num_processes > 1 else []),
        "lmms_eval",
        "--model",
        "llava_scissor",
    ]
    command += ["--model_args", _arguments(model_args), "--tasks", ",".join(experiment.tasks)]
    command += ["--batch_size", str(experiment.batch_size), "--log_samples", "--output_path", str(directory)]
    command += ["--gen_kwargs", _arguments(experiment.generation)] if experiment.generation else []
    command += ["--limit", str(options.limit)] if options.limit else []
    command += ["--include_path", options.include_path] if options.include_path else []
    return command


def _arguments(values: Mapping[str, Any]) -> str:
    """Write settings as lmms-eval reads them."""
    return ",".join(f"{key}={value}" for key, value in values.items())


def _hf_home() -> Path:
    return Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
