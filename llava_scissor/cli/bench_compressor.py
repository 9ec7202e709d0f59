"""`llava-scissor bench compressor`: the compressor alone."""

from __future__ import annotations

import json
import logging
from typing import Annotated, Any

import typer

from llava_scissor.cli.console import clock_line, diagnostics, machine_line, mebibytes, print_table, turned
from llava_scissor.cli.options import (
    ConfigFile,
    Device,
    Overrides,
    Repeats,
    Retentions,
    Threads,
    read_ratios,
    read_scissor,
    read_settings,
)

logger = logging.getLogger(__name__)


def bench_compressor(
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Tokens: made-up, smooth or chains, or a file of `bench record`; repeatable.",
        ),
    ] = None,
    frames: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Frames of the video; repeatable; 32, or all of a file, without it."),
    ] = None,
    retention: Retentions = None,
    tokens_per_frame: Annotated[
        int | None, typer.Option(min=1, help="Visual tokens of a frame, a square; 196 without it.")
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Width of the language model; 896 without it.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    config: ConfigFile = None,
    overrides: Overrides = None,
    device: Device = None,
    threads: Threads = 1,
    repeats: Repeats = 7,
    float32_products: Annotated[
        bool, typer.Option("--float32-products", help="As on a CPU without instructions for bfloat16.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Run the plain versions, too (seconds each).")
    ] = False,
) -> None:
    """Time a threshold and an exact budget that keep as many tokens, beside the products of the definition."""
    with diagnostics():
        settings = read_settings(config, overrides, device=device)
        compression = read_scissor(settings, "bench compressor")
        if compression.tau is not None:
            logger.warning("compression.tau has no effect: each ratio has its own threshold")
        ratios = read_ratios(retention, (0.5, 0.25, 0.1, 0.05, 0.02), compression)
        from llava_scissor.bench import compressor as room  # imports torch
        from llava_scissor.model.placement import choose_device, choose_dtype

        target = choose_device(settings.model.device)
        choose_dtype(dtype, {}, target)  # refuses what is no number format
        bench = room.CompressorBench(
            tokens_per_frame=tokens_per_frame or 196,
            width=width or 896,
            dtype=dtype,
            device=str(target),
            retention_ratios=ratios,
            compression=compression,
            num_threads=threads,
            num_repeats=repeats,
            float32_products=float32_products,
            use_plain=plain,
        )
        sources = [room.open_features(name, bench) for name in features or ["made-up"]]
        if (tokens_per_frame or width) and all(isinstance(s, room.Recording) for s in sources):
            logger.warning("--tokens-per-frame and --width have no effect on recorded tokens")
        report: dict[str, Any] = {**bench.settings(), "machine": room.describe(bench), "rows": []}
        typer.echo(f"{machine_line(report)}. {clock_line(bench.clock)}")
        for rows in room.bench_compressor(bench, sources, frames or []):
            typer.echo(f"\n{_similarity_line(rows[0]['similarity'])}")
            print_table(_title(rows[0], dtype), turned([_row(row, bench.clock) for row in rows]))
            report["rows"] += rows
        typer.echo(json.dumps(report))


def _title(row: dict[str, Any], dtype: str) -> str:
    size = " x ".join(str(row[name]) for name in ("num_frames", "tokens_per_frame", "width"))
    return f"{row['features']}, {size} {dtype}"


def _similarity_line(profile: dict[str, list[float] | None]) -> str:
    shown = [f"{key.replace('_', ' ')} {q}" for key, q in profile.items() if q is not None]
    return f"similarity (5, 50, 95 %): {', '.join(shown)}"


def _row(row: dict[str, Any], clock: str) -> dict[str, Any]:
    functions, counts, taus = row["functions"], row["tokens"], row["budget_taus"]
    return {
        "": f"{100 * row['retention_ratio']:g} %",
        "spatial tokens": counts["spatial"],
        "tau": f"{row['tau']:.4f}",
        "tau_spatial of budget": f"{taus['spatial']:.4f}",
        "tau of budget": f"{taus['temporal']:.4f}",
        "kept at tau": counts["kept_at_tau"],
        "kept at budget": counts["kept_at_budget"],
        **{f"{name}, ms": f"{1000 * one[clock]['min_s']:.1f}" for name, one in functions.items()},
        "tau / products": row["tau_over_products"],
        "budget / tau": row["budget_over_tau"],
        **{
            f"{name}, peak MiB": mebibytes(one["peak_bytes"])
            for name, one in functions.items()
            if one["peak_bytes"] is not None
        },
    }
