"""The commands that measure, count and show; `llava_scissor.cli` gives them their names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from llava_scissor.config import load_config
from llava_scissor.console import diagnostics
from llava_scissor.errors import ConfigError

if TYPE_CHECKING:
    from llava_scissor.model import OneVision
    from llava_scissor.model.geometry import Geometry

_Frames = Annotated[int, typer.Option(min=1, help="Frames of the video.")]
_Repeats = Annotated[int, typer.Option(min=1, help="Timed runs of each.")]
_Device = Annotated[str, typer.Option(help="A torch device, or auto.")]
_MEBIBYTE = 2**20


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
        from llava_scissor.model import load_model
        from llava_scissor.visualization import write_report

        model = load_model(settings.model.path, settings.model.device, settings.model.dtype)
        model.compressor = build_compressor(settings.compression)
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
        from llava_scissor.evaluation import suite as room  # imports torch
        from llava_scissor.evaluation.methods import build_methods
        from llava_scissor.evaluation.suite_report import as_markdown, summarize_suite
        from llava_scissor.model import load_model
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
        _check_ratios(retention)
        from llava_scissor.evaluation.flops import Workload, count_row  # imports torch

        geometry = _geometry(model)
        ratios = [1.0, *(retention or (0.25, 0.1))]
        rows = [
            count_row(geometry, Workload(frames, ratio, None, text_tokens, new_tokens)) for ratio in ratios
        ]
        if use_json:
            typer.echo(json.dumps({"model": model, "num_frames": frames, "rows": rows}))
        else:
            _print_table(f"tera multiply-accumulates, {model}, {frames} frames", _turned(rows))


def bench_compressor(
    frames: _Frames = 32,
    tokens_per_frame: Annotated[int, typer.Option(min=1, help="Visual tokens of a frame, a square.")] = 196,
    width: Annotated[int, typer.Option(min=1, help="Width of the language model.")] = 896,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: _Device = "auto",
    retention: Annotated[float, typer.Option(help="Retention ratio.")] = 0.1,
    sample_size: Annotated[
        int | None, typer.Option(min=1, help="Of the approximate search; exact without it.")
    ] = None,
    repeats: _Repeats = 7,
    plain: Annotated[
        bool, typer.Option("--plain", help="Run the plain versions, too (seconds each).")
    ] = False,
) -> None:
    """Time the compressor beside the matrix products that its definition has."""
    with diagnostics(is_verbose=False, is_quiet=False):
        _check_ratios([retention])
        from llava_scissor.evaluation import compressor_bench as room  # imports torch
        from llava_scissor.model.placement import choose_device, choose_dtype

        target = choose_device(device)
        choose_dtype(dtype, {}, target)  # refuses what is no number format
        report = room.bench_compressor(
            room.CompressorBench(
                num_frames=frames,
                tokens_per_frame=tokens_per_frame,
                width=width,
                dtype=dtype,
                device=str(target),
                retention_ratio=retention,
                sample_size=sample_size,
                num_repeats=repeats,
                use_plain=plain,
            )
        )
        rows = [
            {
                "": row["name"],
                **{f"{key} ms": f"{1000 * row[f'{key}_s']:.1f}" for key in ("min", "p50", "p95")},
                "ratio": f"{row['ratio']:.2f}",
                "kept": row["kept"],
                "peak MiB": _mebibytes(report["peak_bytes"].get(row["name"])),
            }
            for row in report["rows"]
        ]
        _print_table(f"{frames} x {tokens_per_frame} x {width} {dtype}, {_machine(report)}", rows)
        typer.echo(json.dumps(report))


def bench_growth(
    frames: Annotated[
        list[int] | None, typer.Option(min=1, help="Frames of a video; repeatable; 32, 64 .. 256 without it.")
    ] = None,
    width: Annotated[int, typer.Option(min=1, help="Width of the language model.")] = 896,
    tau: Annotated[float, typer.Option(min=-1, max=1, help="Threshold.")] = 0.785,
    retention: Annotated[float, typer.Option(help="Retention ratio of the search with a budget.")] = 0.1,
    sample_size: Annotated[int, typer.Option(min=1, help="Of the sampled search.")] = 1024,
    device: _Device = "auto",
    out: Annotated[Path, typer.Option(help="Directory for results and pictures.")] = Path("runs/growth"),
) -> None:
    """Measure how the compressor's cost grows with the video; a stopped run goes on."""
    with diagnostics(is_verbose=False, is_quiet=False):
        _check_ratios([retention])
        from llava_scissor.evaluation import growth_bench as room  # imports torch
        from llava_scissor.model.placement import choose_device
        from llava_scissor.visualization.curves import require_matplotlib

        require_matplotlib()  # before minutes of work
        target = str(choose_device(device))
        settings = room.GrowthBench(
            width=width, device=target, tau=tau, retention_ratio=retention, sample_size=sample_size
        )
        rows = room.measure_all(frames or [32, 64, 128, 256], settings, out / "growth.jsonl")
        _plot_growth(rows, out)
        _print_table(f"{width} wide, {_machine(rows[-1])}", map(_growth_row, rows))
        typer.echo(json.dumps(rows))


def _plot_growth(rows: list[dict[str, Any]], folder: Path) -> None:
    from llava_scissor.visualization.curves import Curve, plot_curves

    title = f"{rows[0]['tokens_per_frame']} tokens per frame, {rows[0]['width']} wide"
    labels = {
        "ms_per_frame": "milliseconds for each frame",
        "peak_bytes": "peak of memory above the input, bytes",
    }
    for key, label in labels.items():
        curves = []
        for name in dict.fromkeys(row["name"] for row in rows if row[key] is not None):
            mine = [row for row in rows if row["name"] == name]
            y = [row[key] for row in mine]
            curves.append(Curve(name, [row["num_frames"] for row in mine], y, y, y))
        plot_curves(curves, folder / f"growth_{key}.png", title, "frames", label)


def _growth_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "frames": row["num_frames"],
        "": row["name"],
        "seconds": f"{row['seconds']:.2f}",
        "ms per frame": f"{row['ms_per_frame']:.1f}",
        "peak MiB": _mebibytes(row["peak_bytes"]),
        "kept": row["kept"],
    }


def bench_model(
    model: Annotated[str, typer.Option(help="A checkpoint, or 0.5b or 7b for random weights.")] = "demo",
    video: Annotated[str | None, typer.Option(help="Video file; without it, a shipped clip.")] = None,
    frames: _Frames = 32,
    retention: Annotated[
        list[float] | None, typer.Option(help="Retention ratio, besides all tokens; repeatable.")
    ] = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 32,
    device: _Device = "auto",
    dtype: Annotated[str, typer.Option(help="As in the settings; bfloat16 for random weights.")] = "auto",
    repeats: _Repeats = 5,
) -> None:
    """Time whole answers, stage by stage, with all visual tokens and with fewer."""
    with diagnostics(is_verbose=False, is_quiet=False):
        _check_ratios(retention)
        from llava_scissor.compression import Identity, Scissor  # imports torch
        from llava_scissor.config import ScissorConfig
        from llava_scissor.demo.clips import demo_clips
        from llava_scissor.evaluation import model_bench as room

        compressors: dict[str, Any] = {"all tokens": Identity()}
        for ratio in retention or (0.25, 0.1):
            compressors[f"scissor {ratio:.0%}"] = Scissor(ScissorConfig(retention_ratio=ratio))
        report = room.bench_model(
            _load(model, device, dtype),
            compressors,
            video or str(demo_clips()[0].path),
            room.ModelBench(num_frames=frames, max_new_tokens=new_tokens, num_repeats=repeats),
        )
        rows = _turned([_bench_row(row) for row in report["rows"]])
        _print_table(f"{model}, {frames} frames, median ms, {_machine(report)}", rows)
        typer.echo(json.dumps({"model": model, **report}))


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
    from llava_scissor.evaluation.suite_report import show_gap, show_share

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
    _print_table(f"{summary['suite']}, {summary['num_clips']} clips, {num_questions} questions", rows)


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


def _bench_row(row: dict[str, Any]) -> dict[str, Any]:
    per_token = row["per_token"]
    return {
        "": row["name"],
        "tokens": row["tokens"]["kept"],
        **{stage.replace("_", " "): f"{1000 * t['p50_s']:.0f}" for stage, t in row["stages"].items()},
        "per token": "" if per_token is None else f"{1000 * per_token['p50_s']:.1f}",
        "ratio": f"{row['total_ratio']:.2f}",
        "peak MiB": _mebibytes(row["peak_bytes"]),
    }


def _load(model: str, device: str, dtype: str) -> OneVision:
    from llava_scissor.evaluation.random_model import RANDOM_SIZES, random_model
    from llava_scissor.model import load_model
    from llava_scissor.model.placement import choose_device, choose_dtype

    if model not in RANDOM_SIZES:
        return load_model(model, device, dtype)
    target = choose_device(device)
    return random_model(model, target, choose_dtype("bfloat16" if dtype == "auto" else dtype, {}, target))


def _geometry(model: str) -> Geometry:
    from llava_scissor.evaluation.random_model import RANDOM_SIZES, geometry_of
    from llava_scissor.model.checkpoint import find_directory
    from llava_scissor.model.layouts import read_geometry

    return geometry_of(model) if model in RANDOM_SIZES else read_geometry(find_directory(model))


def _check_ratios(ratios: Sequence[float] | None) -> None:
    for ratio in ratios or ():
        if not 0 < ratio <= 1:
            raise ConfigError(f"--retention {ratio}: expected a number in (0, 1]")


def _turned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make columns of rows, named by their first value: many figures of few things fit a narrow terminal."""
    first, *labels = rows[0]
    return [{"": label, **{row[first]: row[label] for row in rows}} for label in labels]


def _print_table(title: str, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "" else "right")
    for row in rows:
        cells = (f"{v:.2f}" if isinstance(v, float) else "" if v is None else str(v) for v in row.values())
        table.add_row(*cells)
    Console(highlight=False).print(table)


def _machine(report: dict[str, Any]) -> str:
    machine = report["machine"]
    return f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}"


def _mebibytes(count: int | None) -> str:
    return "" if count is None else f"{count / _MEBIBYTE:.0f}"
