"""`llava-scissor bench compressor`: the compressor alone."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from llava_scissor.cli.console import diagnostics, machine_line, mebibytes, print_table
from llava_scissor.cli.options import Device, Frames, Repeats, check_ratios


def bench_compressor(
    frames: Frames = 32,
    tokens_per_frame: Annotated[int, typer.Option(min=1, help="Visual tokens of a frame, a square.")] = 196,
    width: Annotated[int, typer.Option(min=1, help="Width of the language model.")] = 896,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Device = None,
    retention: Annotated[float, typer.Option(help="Retention ratio.")] = 0.1,
    sample_size: Annotated[
        int | None, typer.Option(min=1, help="Of the approximate search; exact without it.")
    ] = None,
    repeats: Repeats = 7,
    float32_products: Annotated[
        bool, typer.Option("--float32-products", help="As on a CPU without instructions for bfloat16.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Run the plain versions, too (seconds each).")
    ] = False,
) -> None:
    """Time the compressor beside the matrix products that its definition has."""
    with diagnostics():
        check_ratios([retention])
        from llava_scissor.bench import compressor as room  # imports torch
        from llava_scissor.model.placement import choose_device, choose_dtype

        target = choose_device(device or "auto")
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
                "peak MiB": mebibytes(report["peak_bytes"].get(row["name"])),
            }
            for row in report["rows"]
        ]
        print_table(f"{frames} x {tokens_per_frame} x {width} {dtype}, {machine_line(report)}", rows)
        typer.echo(json.dumps(report))
