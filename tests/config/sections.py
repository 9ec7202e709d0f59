from __future__ import annotations

from llava_scissor.config import Config, MethodConfig


def compression(**values: object) -> MethodConfig:
    """The section `compression` as a file with these keys has it."""
    return Config(compression=values).compression
