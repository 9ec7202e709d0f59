"""Options that several commands share, and what they mean together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from llava_scissor.config import Config, MethodConfig, ScissorConfig, load_config
from llava_scissor.config.methods import RatioConfig
from llava_scissor.errors import ConfigError

APP_STYLE: dict[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "add_completion": False,
}

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML settings; without it, the shipped demo.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one key of the settings; repeatable."),
]
Model = Annotated[str | None, typer.Option("--model", help="Checkpoint, instead of the key model.path.")]
Device = Annotated[
    str | None, typer.Option("--device", help="A torch device or auto, instead of the key model.device.")
]
Retention = Annotated[
    float | None,
    typer.Option("--retention", help="Retention ratio, instead of the key compression.retention_ratio."),
]
Retentions = Annotated[
    list[str] | None,
    typer.Option(
        "--retention", metavar="RATIO", help="Retention ratios to compare; repeatable, or with commas."
    ),
]
Video = Annotated[str | None, typer.Option("--video", help="Video file; without it, a shipped clip.")]
Frames = Annotated[int, typer.Option("--frames", min=1, help="Frames of the video.")]
Threads = Annotated[
    int, typer.Option("--threads", min=1, help="Threads; CPU time is shown of one, wall time of more.")
]
Repeats = Annotated[int, typer.Option("--repeats", min=1, help="Timed runs of each.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


def read_settings(
    config: Path | None,
    overrides: Sequence[str] | None,
    model: str | None = None,
    device: str | None = None,
    retention: float | None = None,
) -> Config:
    """Read the settings of a command; an option of its own stands above `--set`, and that above the file.

    Raises:
        ConfigError: the file or a value cannot be used.
    """
    given = {"model.path": model, "model.device": device, "compression.retention_ratio": retention}
    own = [f"{key}={json.dumps(v, ensure_ascii=False)}" for key, v in given.items() if v is not None]
    return load_config(config, (*(overrides or ()), *own))


def read_scissor(settings: Config, command: str) -> ScissorConfig:
    """Return the settings of the compressor for a command that measures no other method.

    Raises:
        ConfigError: they are of another method.
    """
    compression = settings.compression
    if not isinstance(compression, ScissorConfig):
        raise ConfigError(f"compression.method: {command} measures 'scissor', got '{compression.method}'")
    return compression


def read_ratios(
    texts: Sequence[str] | None, default: Sequence[float], compression: MethodConfig | None = None
) -> list[float]:
    """Read the values of `--retention`, in their order and each once.

    Args:
        texts: the values.
        default: ratios for a command without the option.
        compression: the settings, whose retention ratio stands above the default.

    Raises:
        ConfigError: a value is no number in (0, 1].
    """
    ratios = []
    for part in [part for text in texts or () for part in text.split(",")]:
        try:
            ratios.append(float(part))
        except ValueError:
            raise ConfigError(f"--retention {part}: expected numbers with commas between") from None
    check_ratios(ratios)
    if isinstance(compression, ScissorConfig | RatioConfig) and compression.retention_ratio is not None:
        default = [compression.retention_ratio]
    return list(dict.fromkeys(ratios)) or list(default)


def check_ratios(ratios: Sequence[float]) -> None:
    """Refuse retention ratios that are none.

    Raises:
        ConfigError: one is not in (0, 1].
    """
    for ratio in ratios:
        if not 0 < ratio <= 1:
            raise ConfigError(f"--retention {ratio}: expected a number in (0, 1]")
