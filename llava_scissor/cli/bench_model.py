"""`llava-scissor bench model`: whole answers, stage by stage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llava_scissor.cli.console import diagnostics, machine_line, mebibytes, print_table, turned
from llava_scissor.cli.options import (
    ConfigFile,
    Device,
    Frames,
    Model,
    Overrides,
    Repeats,
    Retentions,
    Video,
    read_ratios,
    read_settings,
)

if TYPE_CHECKING:
    from llava_scissor.compression import Compressor
    from llava_scissor.config import ModelConfig
    from llava_scissor.model import OneVision


def bench_model(
    model: Model = None,
    video: Video = None,
    frames: Frames = 32,
    retention: Retentions = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 32,
    device: Device = None,
    repeats: Repeats = 5,
) -> None:
    """Time whole answers, stage by stage, with all visual tokens and with fewer."""
    with diagnostics():
        ratios = read_ratios(retention, (0.25, 0.1))
        chosen = {ratio: read_settings(config, overrides, model, device, ratio) for ratio in ratios}
        settings = chosen[ratios[0]]
        from llava_scissor.bench import model as room  # imports torch
        from llava_scissor.compression import Identity, build_compressor
        from llava_scissor.demo.clips import demo_clips

        compressors: dict[str, Compressor] = {"all tokens": Identity()}
        for ratio, own in chosen.items():
            compressors[f"{own.compression.method} {ratio:.0%}"] = build_compressor(own.compression)
        report = room.bench_model(
            _load(settings.model),
            compressors,
            video or str(demo_clips()[0].path),
            room.ModelBench(num_frames=frames, max_new_tokens=new_tokens, num_repeats=repeats),
        )
        rows = turned([_bench_row(row) for row in report["rows"]])
        print_table(f"{settings.model.path}, {frames} frames, median ms, {machine_line(report)}", rows)
        typer.echo(json.dumps({"model": settings.model.path, **report}))


def _bench_row(row: dict[str, Any]) -> dict[str, Any]:
    per_token = row["per_token"]
    return {
        "": row["name"],
        "tokens": row["tokens"]["kept"],
        **{stage.replace("_", " "): f"{1000 * t['p50_s']:.0f}" for stage, t in row["stages"].items()},
        "per token": "" if per_token is None else f"{1000 * per_token['p50_s']:.1f}",
        "ratio": f"{row['total_ratio']:.2f}",
        "peak MiB": mebibytes(row["peak_bytes"]),
    }


def _load(config: ModelConfig) -> OneVision:
    """Load a checkpoint, or draw the weights of a named size."""
    from llava_scissor.bench.random_model import random_model
    from llava_scissor.model import load_model_from
    from llava_scissor.model.placement import choose_device, choose_dtype
    from llava_scissor.model.published import PUBLISHED_SIZES

    if config.path not in PUBLISHED_SIZES:
        return load_model_from(config)
    target = choose_device(config.device)
    name = "bfloat16" if config.dtype == "auto" else config.dtype
    return random_model(config.path, target, choose_dtype(name, {}, target))
