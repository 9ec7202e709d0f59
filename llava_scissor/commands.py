"""The commands that measure, count and show; `llava_scissor.cli` gives them their names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from llava_scissor.config import load_config
from llava_scissor.console import check_ratios, diagnostics, print_table, turned
from llava_scissor.errors import ConfigError

if TYPE_CHECKING:
    from llava_scissor.model.geometry import Geometry

_Frames = Annotated[int, typer.Option(min=1, help="Frames of the video.")]
_Device = Annotated[str, typer.Option(help="A torch device, or auto.")]


def visualize(
    video: Annotated[str, typer.Argument(help="Video file.")],
    out: Annotated[Path, typer.Option(help="Directory for the pictures; made if it is not there.")],
    config: Annotated[Path | None, typer.Option(help="YAML settings; without it, the shipped demo.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Change one key of the settings; repeatable."
        ),
    ] = None,
) -> None:
    """Show in pictures which visual tokens of a video were merged."""
    with diagnostics(is_verbose=False, is_quiet=False):
        settings = load_config(config, tuple(overrides or ()))
        from llava_scissor.compression import build_compressor  # imports torch
        from llava_scissor.generation.media import encode_media
        from llava_scissor.generation.stopwatch import Stopwatch
        from llava_scissor.model import load_model_from
        from llava_scissor.visualization import write_report

        model = load_model_from(settings.model, build_compressor(settings.compression))
        seen = encode_media(model, video, settings.video, Stopwatch(model.device))
        write_report(seen.clip, seen.compressions[0], out)
        for name in ("sheet.png", "components.mp4", "sizes.png", "stats.json"):
            typer.echo(str(out / name))


def evaluate(
    suite: Annotated[str, typer.Option(help="Name of the clips and questions.")] = "shapes-v1",
    methods: Annotated[
        str, typer.Option(help="all, or methods with commas between, as in compression.method:key=value.")
    ] = "all",
    retentions: Annotated[
        str, typer.Option(help="Retention ratios with commas between.")
    ] = "0.5,0.35,0.25,0.1,0.05,0.02",
    model: Annotated[str, typer.Option(help="Checkpoint; without it, the shipped demo.")] = "demo",
    clips: Annotated[int | None, typer.Option(min=1, help="Only so many clips.")] = None,
    video_files: Annotated[
        bool, typer.Option("--video-files", help="Show each clip as it is read back from an H.264 file.")
    ] = False,
    device: _Device = "auto",
    out: Annotated[
        Path | None, typer.Option(help="Directory for the results; runs/eval/SUITE without it.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Directory that keeps visual tokens.")] = None,
    use_plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw pictures.")] = True,
    use_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Compare methods on the same clips; a stopped run goes on."""
    with diagnostics(is_verbose=False, is_quiet=False):
        ratios = _parse_ratios(retentions)
        from llava_scissor.model import load_model
        from llava_scissor.suites import suite as room  # imports torch
        from llava_scissor.suites.methods import build_methods
        from llava_scissor.suites.report import as_markdown, summarize_suite
        from llava_scissor.visualization.curves import require_matplotlib

        if use_plots:
            require_matplotlib()  # before hours of work
        compressors = build_methods([name.strip() for name in methods.split(",")], ratios)
        chosen = room.choose_suite(suite, clips, video_files)
        folder = out or Path("runs") / "eval" / suite
        network = load_model(model, device)
        settings = room.describe_run(model, network, chosen)
        room.check_settings(folder / "settings.json", settings)
        with _progress(suite) as on_progress:
            answers = room.run_suite(
                network, compressors, chosen, folder / "results.jsonl", cache, on_progress
            )
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


def flops(
    model: Annotated[str, typer.Option(help="0.5b, 7b, or a checkpoint.")] = "7b",
    frames: _Frames = 32,
    retention: Annotated[
        list[float] | None, typer.Option(help="Retention ratio, besides all tokens; repeatable.")
    ] = None,
    text_tokens: Annotated[int, typer.Option(min=0, help="Tokens of system prompt and question.")] = 40,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the answer.")] = 100,
    use_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Count the multiply-accumulates of an answer, in full and as the paper counts."""
    with diagnostics(is_verbose=False, is_quiet=False):
        check_ratios(retention)
        from llava_scissor.paper.flops import Workload, count_row  # imports torch

        geometry = _geometry(model)
        ratios = [1.0, *(retention or (0.25, 0.1))]
        rows = [
            count_row(geometry, Workload(frames, ratio, None, text_tokens, new_tokens)) for ratio in ratios
        ]
        if use_json:
            typer.echo(json.dumps({"model": model, "num_frames": frames, "rows": rows}))
        else:
            print_table(f"tera multiply-accumulates, {model}, {frames} frames", turned(rows))


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda num_done, num_all: bar.update(task, completed=num_done, total=num_all)


def _parse_ratios(text: str) -> list[float]:
    try:
        ratios = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--retentions {text}: expected numbers with commas between") from None
    for ratio in ratios:
        if not 0 < ratio <= 1:
            raise ConfigError(f"--retentions {text}: {ratio} is not in (0, 1]")
    return sorted(set(ratios), reverse=True)


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


def _geometry(model: str) -> Geometry:
    from llava_scissor.bench.random_model import RANDOM_SIZES, geometry_of
    from llava_scissor.model.checkpoint import find_directory
    from llava_scissor.model.layouts import read_geometry

    return geometry_of(model) if model in RANDOM_SIZES else read_geometry(find_directory(model))
