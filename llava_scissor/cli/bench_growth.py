"""`llava-scissor bench growth`: the cost over the length of the video."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from llava_scissor.cli.console import clock_line, diagnostics, machine_line, mebibytes, print_table
from llava_scissor.cli.options import (
    ConfigFile,
    Device,
    Overrides,
    Retention,
    Threads,
    read_scissor,
    read_settings,
)

logger = logging.getLogger(__name__)


def bench_growth(
    frames: Annotated[
        list[int] | None, typer.Option(min=1, help="Frames of a video; repeatable; 32, 64 .. 256 without it.")
    ] = None,
    width: Annotated[int, typer.Option(min=1, help="Width of the language model.")] = 896,
    tau: Annotated[
        float | None,
        typer.Option(help="Threshold, instead of the key compression.tau; 0.785 without both."),
    ] = None,
    retention: Retention = None,
    sample_size: Annotated[
        int | None,
        typer.Option(help="Of the sampled search, instead of the key of that name; 1024 without both."),
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    device: Device = None,
    threads: Threads = 1,
    out: Annotated[Path, typer.Option(help="Directory for results and pictures.")] = Path("runs/growth"),
) -> None:
    """Measure how the compressor's cost grows with the video; a stopped run goes on."""
    with diagnostics():
        own = {"compression.tau": tau, "compression.sample_size": sample_size}
        own_texts = [f"{key}={value}" for key, value in own.items() if value is not None]
        settings = read_settings(config, (*(overrides or ()), *own_texts), device=device, retention=retention)
        compression = read_scissor(settings, "bench growth")
        if compression.epsilon is not None:
            logger.warning("compression.epsilon has no effect: compression.sample_size is used")
        from llava_scissor.bench import growth as room  # imports torch
        from llava_scissor.model.placement import choose_device
        from llava_scissor.visualization.curves import require_matplotlib

        require_matplotlib()  # before minutes of work
        bench = room.GrowthBench(
            width=width,
            device=str(choose_device(settings.model.device)),
            tau=0.785 if compression.tau is None else compression.tau,
            retention_ratio=compression.retention_ratio or 0.1,
            sample_size=compression.sample_size or 1024,
            compression=compression,
            num_threads=threads,
        )
        rows = room.measure_all(frames or [32, 64, 128, 256], bench, out)
        _plot_growth(rows, out)
        typer.echo(f"{machine_line(rows[-1])}. {clock_line(bench.clock)}")
        print_table(f"{width} wide", map(_growth_row, rows))
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
