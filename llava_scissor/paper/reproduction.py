"""A table of the paper, run again through lmms-eval: what is run, and ours beside theirs.

An experiment is a file such as those in `paper/experiments/`. Scores are compared as shares of the full model.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from llava_scissor.config.yaml_reader import parse_yaml
from llava_scissor.errors import ConfigError, InputError
from llava_scissor.model.checkpoint import DEMO
from llava_scissor.paper.tables import read_table
from llava_scissor.results.statistics import Estimate, Stratum, estimate_ratio

Values = dict[str, bool | int | float | str]
Samples = dict[int, Any]
"""What a task wrote down for a metric of each document, by the document's number."""

_UNITS = (1, 100)
# How tasks write the score of a sample; which one a metric means is found out, see _read_strata.
_READINGS: tuple[Callable[[Any], float], ...] = (
    float,
    lambda sample: float(sample["score"]),
    lambda sample: float("yes" in sample["Correctness"].lower()),
    lambda sample: float(sample["pred_answer"] == sample["answer"]),
    lambda sample: float(str(sample["pred"]) == str(sample["ground_truth"])),
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Run(_Part):
    """One call of lmms-eval, which is one row of the table.

    Attributes:
        method: as the table calls it.
        retention: tokens kept, in percent, as in the table.
        model_args: of this run alone.
    """

    method: str
    retention: float = Field(gt=0, le=100)
    model_args: Values


class Column(_Part):
    """One column of the table.

    Attributes:
        scores: `task/metric` of lmms-eval, of which the column is the mean; `*` stands for any text in a task.
        scale: what the harness's numbers are multiplied with, to be in the unit of the table.
        average_over: field of what the task logs for the metric, over whose values the harness averages.
        video: field of it that names the video; questions about one video are drawn together for the
            interval. None: each question is drawn alone.
    """

    scores: tuple[str, ...] = Field(min_length=1)
    scale: float = 1
    average_over: str | None = None
    video: str | None = None


class Experiment(_Part):
    """What is run for a table.

    Attributes:
        table: its number in the paper; None for an experiment of one's own.
        checkpoint: on the Hugging Face hub, that the paper used.
        model_args: of all runs, for the model plugin.
        generation: settings put over those of the tasks.
        batch_size: questions at once.
        tasks: of lmms-eval, or groups of them.
        columns: of the table, by name.
        runs: the first is the full model, relative to which the others are given.
        data: datasets on the hub by the directory below HF_HOME where lmms-eval looks for their videos.
        needs_judge: whether a language model of another provider scores answers.
    """

    table: str | None = None
    checkpoint: str
    model_args: Values
    generation: Values = {}
    batch_size: int = Field(default=1, ge=1)
    tasks: tuple[str, ...] = Field(min_length=1)
    columns: dict[str, Column] = Field(min_length=1)
    runs: tuple[Run, ...] = Field(min_length=2)
    data: dict[str, str] = {}
    needs_judge: bool = False


def load_experiment(path: Path) -> Experiment:
    """Read an experiment.

    Raises:
        ConfigError: the file cannot be read, or is not an experiment.
    """
    try:
        return Experiment.model_validate(parse_yaml(path.read_text(encoding="utf-8"))[0])
    except (OSError, ValueError, yaml.YAMLError) as error:  # a ValueError: not UTF-8, or not an experiment
        raise ConfigError(f"{path} cannot be read as an experiment: {error}") from error


def find_missing(experiment: Experiment, checkpoint: str, hf_home: Path) -> list[str]:
    """Say what an experiment needs that is not here, and how to get it; nothing is downloaded.

    Returns:
        One text for each thing: lmms-eval, checkpoint, videos of the tasks, key of the judge.
    """
    missing = []
    if find_spec("lmms_eval") is None:
        missing.append("lmms-eval is not installed in this Python: docs/lmms-eval.md says how")
    if checkpoint != DEMO and not Path(checkpoint).expanduser().is_dir():
        download = f"hf download {experiment.checkpoint} --local-dir {checkpoint}"
        missing.append(f"checkpoint {checkpoint}: there is no such directory; {download}")
    absent = [name for name in experiment.data if not any((hf_home / name).glob("*"))]
    missing += [f"{experiment.data[name]}: its videos are not in {hf_home / name}" for name in absent]
    if absent:
        fetch = f"lmms-eval --model dummy --tasks {','.join(experiment.tasks)} --limit 1"
        missing.append(
            f"lmms-eval fetches and unpacks the videos of its tasks with HF_HOME={hf_home} {fetch}"
        )
    if experiment.needs_judge and not os.environ.get("OPENAI_API_KEY"):
        missing.append("a judge scores answers: set OPENAI_API_KEY, and MODEL_VERSION to the judge's name")
    return missing


def compare(experiment: Experiment, runs: Sequence[Run], directories: Sequence[Path]) -> list[dict[str, Any]]:
    """Put ours beside the paper's.

    Args:
        experiment: what was run.
        runs: of the experiment; the first is the full model.
        directories: with the results of each, as lmms-eval writes them with `--log_samples`.

    Returns:
        For each run and column, and for the mean over several columns: `method`, `retention`, `column`; `ours`
        and `paper`, the scores in the unit of the table; `share` and `paper_share`, in percent of the full
        model; `low` and `high`, the 95 % interval of `share`; `questions`, how many it rests on; `note`, why
        there is no interval. None where there is none.

    Raises:
        InputError: a result is missing, or two runs were not asked the same documents.
    """
    printed = read_table(experiment.table).rows if experiment.table else ()
    by_run = {(row["method"], row["retention"]): row for row in printed}
    full = by_run.get((runs[0].method, runs[0].retention))  # table 6 prints shares, and no full model
    rows = []
    for run, directory in zip(runs, directories, strict=True):
        paper = by_run.get((run.method, run.retention), {})
        cells = []
        for name, column in experiment.columns.items():
            score = paper.get(name)
            share = 100 * score / full[name] if full and score is not None else score
            theirs = {"paper": score if full else None, "paper_share": share}
            cells.append({"column": name, **_cell(column, directories[0], directory), **theirs})
        if len(cells) > 1:
            means = {key: _mean([cell[key] for cell in cells]) for key in ("share", "paper_share")}
            cells.append(dict.fromkeys(cells[0]) | {"column": "mean", "note": ""} | means)
        rows += [{"method": run.method, "retention": run.retention, **cell} for cell in cells]
    return rows


def _cell(column: Column, full: Path, directory: Path) -> dict[str, Any]:
    scores, reference = _read_scores(directory, column), _read_scores(full, column)
    if set(scores) != set(reference):
        raise InputError(f"{directory} and {full} hold results of other tasks: run both again")
    ours, theirs = fmean(scores.values()), fmean(reference.values())
    estimate, note = (
        (None, "") if directory == full else _estimate(column, full, directory, scores, reference)
    )
    return {
        "ours": column.scale * ours,
        "share": 100 * ours / theirs if theirs else None,
        "low": 100 * estimate.low if estimate else None,
        "high": 100 * estimate.high if estimate else None,
        "questions": estimate.num_questions if estimate else None,
        "note": note,
    }


def _read_scores(directory: Path, column: Column) -> dict[tuple[str, str], float]:
    """Return what the harness says of each task and metric of a column."""
    path = max(directory.rglob("*_results.json"))  # named by date
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    found = {}
    for pattern, _, metric in (score.partition("/") for score in column.scores):
        values = {
            (task, metric): value
            for task, entries in results.items()
            for key, value in entries.items()
            if fnmatchcase(task, pattern) and key.partition(",")[0] == metric
        }
        if not values or not all(isinstance(value, (int, float)) for value in values.values()):
            raise InputError(f"{path} has no score {pattern}/{metric}: its tasks are {', '.join(results)}")
        found |= values
    return found


def _estimate(
    column: Column, full: Path, directory: Path, scores: dict[tuple[str, str], float], reference: dict
) -> tuple[Estimate | None, str]:
    """Return the interval of the ratio of two runs, or why there is none."""
    strata: list[Stratum] = []
    for (task, metric), score in scores.items():
        ours, theirs = _read_samples(directory, task, metric), _read_samples(full, task, metric)
        if set(ours) != set(theirs):
            raise InputError(f"{task}: {directory} and {full} do not hold the same documents: run both again")
        found = _read_strata(column, ours, theirs, (score, reference[task, metric]))
        if not found:
            return None, f"no interval: samples of {task} do not add up to the score of the harness"
        strata += found
    return estimate_ratio(strata), ""


def _read_samples(directory: Path, task: str, metric: str) -> Samples:
    path = max(directory.rglob(f"*_samples_{task}.jsonl"))
    samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {sample["doc_id"]: sample.get(metric) for sample in samples}


def _read_strata(column: Column, ours: Samples, theirs: Samples, said: tuple[float, float]) -> list[Stratum]:
    """Read samples in the one way whose mean is what the harness says of both runs; none if there is no such."""
    for reading in _READINGS:
        try:
            groups = defaultdict(list)
            for i, sample in ours.items():
                clip = sample[column.video] if column.video else i
                groups[sample[column.average_over] if column.average_over else None].append(
                    (clip, reading(sample), reading(theirs[i]))
                )
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        strata = [Stratum(1 / len(groups), *zip(*group, strict=True)) for group in groups.values()]
        means = [
            fmean(map(fmean, parts)) for parts in zip(*((s.scores, s.reference) for s in strata), strict=True)
        ]
        if all(any(abs(u * m - s) < 1e-6 * u for u in _UNITS) for m, s in zip(means, said, strict=True)):
            return strata
    return []


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None
