"""From a name in a config to a compressor."""

from __future__ import annotations

from collections.abc import Callable

from llava_scissor.compression.baselines.pooling import Pooling
from llava_scissor.compression.baselines.random import RandomTokens
from llava_scissor.compression.baselines.uniform import UniformTokens
from llava_scissor.compression.protocol import Compressor, Identity
from llava_scissor.compression.scissor import Scissor
from llava_scissor.config import CompressionConfig
from llava_scissor.errors import ConfigError

COMPRESSORS: dict[str, Callable[[CompressionConfig], Compressor]] = {
    "none": lambda config: Identity(),
    "scissor": lambda config: Scissor(config),
    "random": lambda config: RandomTokens(_ratio(config), config.seed),
    "uniform": lambda config: UniformTokens(_ratio(config)),
    "pooling": lambda config: Pooling(_ratio(config)),
}


def build_compressor(config: CompressionConfig) -> Compressor:
    """Build the compressor that a config names.

    Raises:
        ConfigError: the method needs a retention ratio and the config has none.
    """
    return COMPRESSORS[config.method](config)


def _ratio(config: CompressionConfig) -> float:
    if config.retention_ratio is None:
        raise ConfigError(
            f"compression.retention_ratio is required by compression.method = {config.method}, which has no "
            f"threshold; set it to a number in (0, 1]"
        )
    return config.retention_ratio
