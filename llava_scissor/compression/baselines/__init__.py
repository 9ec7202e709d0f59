"""Other ways to keep an exact number of visual tokens, for comparison."""

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

PEERS = (
    EVS,
    DivPrune,
    DyCoke,
    FastV,
    FastVID,
    HoliTom,
    L2Norm,
    Pooling,
    PruneVid,
    RandomTokens,
    ToMe,
    Unified,
    UniformFrames,
    UniformTokens,
    VidCom2,
    VisionZip,
)
"""Every method, by its settings in the registry."""

__all__ = [
    "EVS",
    "DivPrune",
    "DyCoke",
    "FastV",
    "FastVID",
    "HoliTom",
    "L2Norm",
    "Pooling",
    "PruneVid",
    "RandomTokens",
    "ToMe",
    "Unified",
    "UniformFrames",
    "UniformTokens",
    "VidCom2",
    "VisionZip",
]
