"""From settings to a compressor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
from llava_scissor.compression.protocol import Compressor, Identity
from llava_scissor.compression.scissor import Scissor
from llava_scissor.config.methods import (
    DivPruneConfig,
    DyCokeConfig,
    EVSConfig,
    FastVConfig,
    FastVIDConfig,
    HoliTomConfig,
    L2NormConfig,
    MethodConfig,
    NoCompressionConfig,
    PoolingConfig,
    PruneVidConfig,
    RandomConfig,
    ScissorConfig,
    ToMeConfig,
    UnifiedConfig,
    UniformConfig,
    UniformFramesConfig,
    VidCom2Config,
    VisionZipConfig,
)

COMPRESSORS: dict[type[MethodConfig], Callable[[Any], Compressor]] = {
    ScissorConfig: Scissor,
    NoCompressionConfig: Identity,
    RandomConfig: RandomTokens,
    UniformConfig: UniformTokens,
    UniformFramesConfig: UniformFrames,
    PoolingConfig: Pooling,
    L2NormConfig: L2Norm,
    ToMeConfig: ToMe,
    DyCokeConfig: DyCoke,
    DivPruneConfig: DivPrune,
    EVSConfig: EVS,
    VidCom2Config: VidCom2,
    PruneVidConfig: PruneVid,
    VisionZipConfig: VisionZip,
    FastVIDConfig: FastVID,
    HoliTomConfig: HoliTom,
    UnifiedConfig: Unified,
    FastVConfig: FastV,
}
"""The compressor of each settings class."""


def build_compressor(config: MethodConfig) -> Compressor:
    """Build the compressor that some settings are for."""
    return COMPRESSORS[type(config)](config)
