"""`llava-scissor flops`: the multiply-accumulates of an answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from llava_scissor.cli.console import diagnostics, print_table, turned
from llava_scissor.cli.options import ConfigFile, Json, Overrides, Retentions, read_ratios, read_settings

if TYPE_CHECKING:
    from llava_scissor.model.geometry import Geometry


def flops(
    config: ConfigFile = None,
    model: Annotated[
        str | None, typer.Option(help="0.5b, 7b or a checkpoint; 7b without it and without --config.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of the video, instead of the key video.num_frames.")
    ] = None,
    retention: Retentions = None,
    overrides: Overrides = None,
    text_tokens: Annotated[int, typer.Option(min=0, help="Tokens of system prompt and question.")] = 40,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the answer.")] = 100,
    use_json: Json = False,
) -> None:
    """Count the multiply-accumulates of an answer, in full and as the paper counts."""
    with diagnostics():
        default = ["model.path=7b"] if config is None else []
        settings = read_settings(config, [*default, *(overrides or [])], model)
        ratios = [1.0, *read_ratios(retention, (0.25, 0.1), settings.compression)]
        from llava_scissor.paper.flops import Workload, count_row  # imports torch

        name = settings.model.path
        geometry = _geometry(name)
        frames = frames or settings.video.num_frames or geometry.default_num_frames
        rows = [
            count_row(geometry, Workload(frames, ratio, None, text_tokens, new_tokens)) for ratio in ratios
        ]
        if use_json:
            typer.echo(json.dumps({"model": name, "num_frames": frames, "rows": rows}))
        else:
            print_table(f"tera multiply-accumulates, {name}, {frames} frames", turned(rows))


def _geometry(model: str) -> Geometry:
    from llava_scissor.model.checkpoint import find_directory
    from llava_scissor.model.layouts import read_geometry
    from llava_scissor.model.published import PUBLISHED_SIZES, published_geometry

    return published_geometry(model) if model in PUBLISHED_SIZES else read_geometry(find_directory(model))
