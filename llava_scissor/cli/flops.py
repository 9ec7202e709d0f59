"""`llava-scissor flops`: the multiply-accumulates of an answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from llava_scissor.cli.console import diagnostics, print_table, turned
from llava_scissor.cli.options import Frames, Json, Retentions, read_ratios

if TYPE_CHECKING:
    from llava_scissor.model.geometry import Geometry


def flops(
    model: Annotated[str, typer.Option(help="0.5b, 7b, or a checkpoint.")] = "7b",
    frames: Frames = 32,
    retention: Retentions = None,
    text_tokens: Annotated[int, typer.Option(min=0, help="Tokens of system prompt and question.")] = 40,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the answer.")] = 100,
    use_json: Json = False,
) -> None:
    """Count the multiply-accumulates of an answer, in full and as the paper counts."""
    with diagnostics():
        ratios = [1.0, *read_ratios(retention, (0.25, 0.1))]
        from llava_scissor.paper.flops import Workload, count_row  # imports torch

        geometry = _geometry(model)
        rows = [
            count_row(geometry, Workload(frames, ratio, None, text_tokens, new_tokens)) for ratio in ratios
        ]
        if use_json:
            typer.echo(json.dumps({"model": model, "num_frames": frames, "rows": rows}))
        else:
            print_table(f"tera multiply-accumulates, {model}, {frames} frames", turned(rows))


def _geometry(model: str) -> Geometry:
    from llava_scissor.bench.random_model import RANDOM_SIZES, geometry_of
    from llava_scissor.model.checkpoint import find_directory
    from llava_scissor.model.layouts import read_geometry

    return geometry_of(model) if model in RANDOM_SIZES else read_geometry(find_directory(model))
