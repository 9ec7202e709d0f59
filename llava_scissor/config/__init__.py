"""Settings: one frozen model per section, read from YAML and `--set` overrides; never imports torch."""

from llava_scissor.config.loading import load_config, to_dict
from llava_scissor.config.schema import (
    CompressionConfig,
    Config,
    GenerationConfig,
    ModelConfig,
    ScissorConfig,
    Section,
    VideoConfig,
)

__all__ = [
    "CompressionConfig",
    "Config",
    "GenerationConfig",
    "ModelConfig",
    "ScissorConfig",
    "Section",
    "VideoConfig",
    "load_config",
    "to_dict",
]
