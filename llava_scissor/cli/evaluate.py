"""`llava-scissor eval`: methods on the same clips and questions."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from llava_scissor.cli.console import diagnostics, print_table
from llava_scissor.cli.options import (
    ConfigFile,
    Device,
    Json,
    Model,
    Overrides,
    Retentions,
    read_ratios,
    read_settings,
)
from llava_scissor.config import Config

logger = logging.getLogger(__name__)

_RATIOS = (0.5, 0.35, 0.25, 0.1, 0.05, 0.02)


def evaluate(
    suite: Annotated[str, typer.Option(help="Name of the clips and questions.")] = "shapes-v1",
    methods: Annotated[
        str, typer.Option(help="all, or methods with commas between, as in compression.method:key=value.")
    ] = "all",
    retention: Retentions = None,
    config: ConfigFile = None,
    model: Model = None,
    overrides: Overrides = None,
    clips: Annotated[int | None, typer.Option(min=1, help="Only so many clips.")] = None,
    video_files: Annotated[
        bool, typer.Option("--video-files", help="Show each clip as it is read back from an H.264 file.")
    ] = False,
    device: Device = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory for the results; runs/eval/SUITE without it.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Directory that keeps visual tokens.")] = None,
    use_plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw pictures.")] = True,
    use_json: Json = False,
) -> None:
    """Compare methods on the same clips; a stopped run goes on."""
    with diagnostics():
        given = read_settings(config, overrides, model, device)
        _warn_without_effect(given)
        ratios = sorted(read_ratios(retention, _RATIOS, given.compression), reverse=True)
        from llava_scissor.model import load_model_from
        from llava_scissor.results.answers import ANSWER_TASK
        from llava_scissor.results.store import ResultStore
        from llava_scissor.suites import suite as room  # imports torch
        from llava_scissor.suites.methods import build_methods
        from llava_scissor.suites.report import as_markdown, summarize_suite
        from llava_scissor.visualization.curves import require_matplotlib

        if use_plots:
            require_matplotlib()  # before hours of work
        compressors = build_methods([name.strip() for name in methods.split(",")], ratios)
        chosen = room.choose_suite(suite, clips, video_files)
        folder = out or Path("runs") / "eval" / suite
        network = load_model_from(given.model)
        settings = room.describe_run(given.model.path, network, chosen)
        store = ResultStore(folder, settings, ANSWER_TASK)
        with _progress(suite) as on_progress:
            answers = room.run_suite(network, compressors, chosen, store, cache, on_progress)
        summary = {**settings, "num_clips": chosen.num_clips, "rows": summarize_suite(answers)}
        (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        (folder / "report.md").write_text(as_markdown(summary), encoding="utf-8")
        if use_plots and len(compressors) > 1:
            _plot_suite(summary, folder)
        if use_json:
            typer.echo(json.dumps(summary))
        else:
            _print_suite(summary)
            typer.echo(f"more in {folder / 'report.md'}")


def _warn_without_effect(given: Config) -> None:
    """Say which sections were set for nothing: the suite has frames and answers of its own."""
    default = Config()
    compression = given.compression.model_copy(update={"retention_ratio": None})
    is_set = {
        "video": given.video != default.video,
        "compression (beside retention_ratio; see --methods)": compression != default.compression,
        "generation": given.generation != default.generation,
    }
    if without_effect := [name for name, differs in is_set.items() if differs]:
        logger.warning("no effect in eval: the sections %s", ", ".join(without_effect))


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda num_done, num_all: bar.update(task, completed=num_done, total=num_all)


def _print_suite(summary: dict[str, Any]) -> None:
    from llava_scissor.suites.report import show_gap, show_share

    rows = []
    for row in summary["rows"]:
        gaps = {name: difference["all"] for name, difference in row["differences"].items()}
        rows.append(
            {
                "": row["method"],
                "kept": f"{row['kept']:.1%}",
                "accuracy": show_share(row["accuracy"]["all"]),
                **{f"to {n}": show_gap(gaps[n]) if n in gaps else "" for n in ("random", "scissor")},
                "ms": f"{row['compression_ms'] + row['answer_ms']:.1f}",
            }
        )
    num_questions = summary["rows"][0]["accuracy"]["all"]["num_questions"]
    print_table(f"{summary['suite']}, {summary['num_clips']} clips, {num_questions} questions", rows)


def _plot_suite(summary: dict[str, Any], folder: Path) -> None:
    from llava_scissor.visualization.curves import Curve, plot_curves

    full, *rows = summary["rows"]
    by_kept, by_time = [], []
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        y, low, high = ([row["accuracy"]["all"][key] for row in mine] for key in ("value", "low", "high"))
        times = [row["compression_ms"] + row["answer_ms"] for row in mine]
        by_kept.append(Curve(name, [row["kept"] for row in mine], y, low, high, name == "scissor"))
        by_time.append(Curve(name, times, y, low, high, name == "scissor"))
    title = f"{summary['suite']}, {summary['num_clips']} clips, {summary['model']}"
    height = full["accuracy"]["all"]["value"]
    y_label = "questions answered right, with 95 % interval"
    level, path = ("all tokens", height), folder / "accuracy.png"
    plot_curves(by_kept, path, title, "visual tokens kept", y_label, level, is_share=True)
    x_label = "ms for a clip: compressor and all answers, without the vision tower"
    everything = Curve(
        "all tokens", [full["compression_ms"] + full["answer_ms"]], [height], [height], [height]
    )
    plot_curves([*by_time, everything], folder / "time.png", title, x_label, y_label)
