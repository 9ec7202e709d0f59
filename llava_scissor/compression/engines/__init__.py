"""The engines that find components and nearest tokens: name -> class."""

from __future__ import annotations

from llava_scissor.compression.engines.base import Components, Engine
from llava_scissor.compression.engines.tiled.engine import TiledEngine

ENGINES: dict[str, type[Engine]] = {"tiled": TiledEngine}
"""Every engine by its name."""

__all__ = ["ENGINES", "Components", "Engine", "TiledEngine"]
