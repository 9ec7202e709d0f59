"""`llava-scissor bench`: what compression costs and saves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llava_scissor.console import check_ratios, diagnostics, print_table, turned

if TYPE_CHECKING:
    from llava_scissor.model import OneVision

_Frames = Annotated[int, typer.Option(min=1, help="Frames of the video.")]
_Repeats = Annotated[int, typer.Option(min=1, help="Timed runs of each.")]
_Device = Annotated[str, typer.Option(help="A torch device, or auto.")]
_MEBIBYTE = 2**20


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
    float32_products: Annotated[
        bool, typer.Option("--float32-products", help="As on a CPU without instructions for bfloat16.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Run the plain versions, too (seconds each).")
    ] = False,
) -> None:
    """Time the compressor beside the matrix products that its definition has."""
    with diagnostics(is_verbose=False, is_quiet=False):
        check_ratios([retention])
        from llava_scissor.bench import compressor as room  # imports torch
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
                float32_products=float32_products,
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
        print_table(f"{frames} x {tokens_per_frame} x {width} {dtype}, {_machine(report)}", rows)
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
        check_ratios([retention])
        from llava_scissor.bench import growth as room  # imports torch
        from llava_scissor.model.placement import choose_device
        from llava_scissor.visualization.curves import require_matplotlib

        require_matplotlib()  # before minutes of work
        target = str(choose_device(device))
        settings = room.GrowthBench(
            width=width, device=target, tau=tau, retention_ratio=retention, sample_size=sample_size
        )
        rows = room.measure_all(frames or [32, 64, 128, 256], settings, out / "growth.jsonl")
        _plot_growth(rows, out)
        print_table(f"{width} wide, {_machine(rows[-1])}", map(_growth_row, rows))
        typer.echo(json.dumps(rows))


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
        check_ratios(retention)
        from llava_scissor.bench import model as room
        from llava_scissor.compression import Identity, Scissor  # imports torch
        from llava_scissor.config import ScissorConfig
        from llava_scissor.demo.clips import demo_clips

        compressors: dict[str, Any] = {"all tokens": Identity()}
        for ratio in retention or (0.25, 0.1):
            compressors[f"scissor {ratio:.0%}"] = Scissor(ScissorConfig(retention_ratio=ratio))
        report = room.bench_model(
            _load(model, device, dtype),
            compressors,
            video or str(demo_clips()[0].path),
            room.ModelBench(num_frames=frames, max_new_tokens=new_tokens, num_repeats=repeats),
        )
        rows = turned([_bench_row(row) for row in report["rows"]])
        print_table(f"{model}, {frames} frames, median ms, {_machine(report)}", rows)
        typer.echo(json.dumps({"model": model, **report}))


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
    from llava_scissor.bench.random_model import RANDOM_SIZES, random_model
    from llava_scissor.model import load_model
    from llava_scissor.model.placement import choose_device, choose_dtype

    if model not in RANDOM_SIZES:
        return load_model(model, device, dtype)
    target = choose_device(device)
    return random_model(model, target, choose_dtype("bfloat16" if dtype == "auto" else dtype, {}, target))


def _machine(report: dict[str, Any]) -> str:
    machine = report["machine"]
    return f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}"


def _mebibytes(count: int | None) -> str:
    return "" if count is None else f"{count / _MEBIBYTE:.0f}"
