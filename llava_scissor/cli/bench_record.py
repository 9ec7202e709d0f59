"""`llava-scissor bench record`: real visual tokens to measure a compressor on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from llava_scissor.cli.console import diagnostics
from llava_scissor.cli.options import ConfigFile, Device, Model, Overrides, Video, read_settings


def bench_record(
    output: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    video: Video = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of the video, instead of the key video.num_frames.")
    ] = None,
    config: ConfigFile = None,
    model: Model = None,
    overrides: Overrides = None,
    device: Device = None,
) -> None:
    """Write the visual tokens of a video, before compression, for `bench compressor --features`."""
    with diagnostics():
        own = () if frames is None else (f"video.num_frames={frames}",)
        settings = read_settings(config, (*(overrides or ()), *own), model, device)
        from llava_scissor.bench.features import similarity_profile  # imports torch
        from llava_scissor.bench.record import record
        from llava_scissor.bench.recordings import check_target
        from llava_scissor.demo.clips import demo_clips

        check_target(output)
        tokens = record(settings, video or str(demo_clips()[0].path), output).tokens
        dtype = str(tokens.dtype).removeprefix("torch.")
        size = dict(zip(("num_frames", "tokens_per_frame", "width"), tokens.shape, strict=True))
        typer.echo(f"{output}: {' x '.join(map(str, tokens.shape))} {dtype}")
        found = {"output": str(output), **size, "dtype": dtype, "similarity": similarity_profile(tokens)}
        typer.echo(json.dumps(found))
