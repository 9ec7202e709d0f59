"""`llava-scissor visualize`: which visual tokens were merged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llava_scissor.cli.console import diagnostics
from llava_scissor.cli.options import ConfigFile, Model, Overrides, Retention, read_settings


def visualize(
    video: Annotated[str, typer.Argument(help="Video file.")],
    out: Annotated[Path, typer.Option(help="Directory for the pictures; made if it is not there.")],
    config: ConfigFile = None,
    model: Model = None,
    retention: Retention = None,
    overrides: Overrides = None,
) -> None:
    """Show in pictures which visual tokens of a video were merged."""
    with diagnostics():
        settings = read_settings(config, overrides, model, retention=retention)
        from llava_scissor.compression import build_compressor  # imports torch
        from llava_scissor.generation.encode import encode_media
        from llava_scissor.generation.stopwatch import Stopwatch
        from llava_scissor.model import load_model_from
        from llava_scissor.visualization import write_report

        network = load_model_from(settings.model, build_compressor(settings.compression))
        seen = encode_media(network, video, settings.video, Stopwatch(network.device))
        assert seen.clip is not None
        write_report(seen.clip, seen.compressions[0], out)
        for name in ("sheet.png", "components.mp4", "sizes.png", "stats.json"):
            typer.echo(str(out / name))
