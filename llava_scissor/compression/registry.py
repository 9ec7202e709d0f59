"""From settings to a compressor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llava_scissor.compression.baselines import PEERS
from llava_scissor.compression.protocol import Compressor, Identity
from llava_scissor.compression.scissor import Scissor
from llava_scissor.config.methods import MethodConfig

COMPRESSORS: dict[type[MethodConfig], Callable[[Any], Compressor]] = {
    method.settings: method for method in (Identity, Scissor, *PEERS)
}
"""The compressor of each settings class."""


def build_compressor(config: MethodConfig) -> Compressor:
    """Build the compressor that some settings are for."""
    return COMPRESSORS[type(config)](config)
