"""`llava-scissor bench growth`: the cost over the length of the video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from llava_scissor.cli.console import diagnostics, machine_line, mebibytes, print_table
from llava_scissor.cli.options import Device, check_ratios


def bench_growth(
    frames: Annotated[
        list[int] | None, typer.Option(min=1, help="Frames of a video; repeatable; 32, 64 .. 256 without it.")
    ] = None,
    width: Annotated[int, typer.Option(min=1, help="Width of the language model.")] = 896,
    tau: Annotated[float, typer.Option(min=-1, max=1, help="Threshold.")] = 0.785,
    retention: Annotated[float, typer.Option(help="Retention ratio of the search with a budget.")] = 0.1,
    sample_size: Annotated[int, typer.Option(min=1, help="Of the sampled search.")] = 1024,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Directory for results and pictures.")] = Path("runs/growth"),
) -> None:
    """Measure how the compressor's cost grows with the video; a stopped run goes on."""
    with diagnostics():
        check_ratios([retention])
        from llava_scissor.bench import growth as room  # imports torch
        from llava_scissor.model.placement import choose_device
        from llava_scissor.visualization.curves import require_matplotlib

        require_matplotlib()  # before minutes of work
        target = str(choose_device(device or "auto"))
        settings = room.GrowthBench(
            width=width, device=target, tau=tau, retention_ratio=retention, sample_size=sample_size
        )
        rows = room.measure_all(frames or [32, 64, 128, 256], settings, out)
        _plot_growth(rows, out)
        print_table(f"{width} wide, {machine_line(rows[-1])}", map(_growth_row, rows))
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
        "peak MiB": mebibytes(row["peak_bytes"]),
        "kept": row["kept"],
    }
