"""From a name in a config to a compressor."""

from __future__ import annotations

from collections.abc import Callable

from llava_scissor.compression.baselines.divprune import DivPrune
from llava_scissor.compression.baselines.fastv import FastV
from llava_scissor.compression.baselines.fastvid import FastVID
from llava_scissor.compression.baselines.holitom import HoliTom
from llava_scissor.compression.baselines.norm import L2Norm
from llava_scissor.compression.baselines.pooling import Pooling
from llava_scissor.compression.baselines.prunevid import PruneVid
from llava_scissor.compression.baselines.random import RandomTokens
from llava_scissor.compression.baselines.temporal import EVS, DyCoke
from llava_scissor.compression.baselines.tome import ToMe
from llava_scissor.compression.baselines.unified import Unified
from llava_scissor.compression.baselines.uniform import UniformFrames, UniformTokens
from llava_scissor.compression.baselines.vidcom2 import VidCom2
from llava_scissor.compression.baselines.visionzip import VisionZip
from llava_scissor.compression.places import AtPlaces
from llava_scissor.compression.protocol import Compressor, Identity
from llava_scissor.compression.scissor import Scissor
from llava_scissor.config import CompressionConfig
from llava_scissor.errors import ConfigError

_PEERS: dict[str, Callable[[float], Compressor]] = {
    "uniform": UniformTokens,
    "uniform_frames": UniformFrames,
    "pooling": Pooling,
    "l2norm": L2Norm,
    "tome": ToMe,
    "dycoke": DyCoke,
    "divprune": DivPrune,
    "evs": EVS,
    "vidcom2": VidCom2,
    "prunevid": PruneVid,
    "visionzip": VisionZip,
    "fastvid": FastVID,
    "holitom": HoliTom,
    "unified": Unified,
    "fastv": FastV,
}

COMPRESSORS: dict[str, Callable[[CompressionConfig], Compressor]] = {
    "none": lambda config: Identity(),
    "scissor": lambda config: Scissor(config),
    "random": lambda config: RandomTokens(_ratio(config), config.seed),
    **{name: lambda config, kind=kind: kind(_ratio(config)) for name, kind in _PEERS.items()},
}


def build_compressor(config: CompressionConfig) -> Compressor:
    """Build the compressor that a config names.

    Raises:
        ConfigError: the method needs a retention ratio and the config has none.
    """
    compressor = COMPRESSORS[config.method](config)
    keeps_own_places = config.method in ("scissor", "none", "fastv")
    return AtPlaces(compressor) if config.positions == "original" and not keeps_own_places else compressor


def _ratio(config: CompressionConfig) -> float:
    if config.retention_ratio is None:
        raise ConfigError(
            f"compression.retention_ratio is required by compression.method = {config.method}, which has no "
            f"threshold; set it to a number in (0, 1]"
        )
    return config.retention_ratio
