"""LLaVA-OneVision inference with training-free compression of visual tokens.

The names below are imported on first use, so that `import llava_scissor` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llava_scissor._version import __version__

if TYPE_CHECKING:
    from llava_scissor.compression import (
        CompressionResult,
        Compressor,
        Identity,
        KeepPositions,
        Scissor,
        StreamingScissor,
        build_compressor,
        compress,
        compress_batch,
    )
    from llava_scissor.compression.baselines import (
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
    from llava_scissor.config import (
        Config,
        DivPruneConfig,
        DyCokeConfig,
        EVSConfig,
        FastVConfig,
        FastVIDConfig,
        HoliTomConfig,
        L2NormConfig,
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
        VisualBudget,
        load_config,
        visual_budget,
    )
    from llava_scissor.errors import ScissorError
    from llava_scissor.generation import Answer, Request, Session, ask, ask_batch
    from llava_scissor.model import Images, OneVision, Turn, load_model, load_model_from
    from llava_scissor.video import VideoClip, read_video

_ROOM_OF = {
    **dict.fromkeys(["VisualBudget", "visual_budget"], "config"),
    **dict.fromkeys(["CompressionResult", "Compressor", "Identity", "KeepPositions"], "compression"),
    **dict.fromkeys(["Scissor", "StreamingScissor"], "compression"),
    **dict.fromkeys(["build_compressor", "compress", "compress_batch"], "compression"),
    **dict.fromkeys(
        [
            "DivPrune",
            "DyCoke",
            "EVS",
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
        ],
        "compression.baselines",
    ),
    **dict.fromkeys(
        [
            "Config",
            "DivPruneConfig",
            "DyCokeConfig",
            "EVSConfig",
            "FastVConfig",
            "FastVIDConfig",
            "HoliTomConfig",
            "L2NormConfig",
            "NoCompressionConfig",
            "PoolingConfig",
            "PruneVidConfig",
            "RandomConfig",
            "ScissorConfig",
            "ToMeConfig",
            "UnifiedConfig",
            "UniformConfig",
            "UniformFramesConfig",
            "VidCom2Config",
            "VisionZipConfig",
            "load_config",
        ],
        "config",
    ),
    **dict.fromkeys(["ScissorError"], "errors"),
    **dict.fromkeys(["Answer", "Request", "Session", "ask", "ask_batch"], "generation"),
    **dict.fromkeys(["Images", "OneVision", "Turn", "load_model", "load_model_from"], "model"),
    **dict.fromkeys(["VideoClip", "read_video"], "video"),
}

__all__ = [
    "EVS",
    "Answer",
    "CompressionResult",
    "Compressor",
    "Config",
    "DivPrune",
    "DivPruneConfig",
    "DyCoke",
    "DyCokeConfig",
    "EVSConfig",
    "FastV",
    "FastVConfig",
    "FastVID",
    "FastVIDConfig",
    "HoliTom",
    "HoliTomConfig",
    "Identity",
    "Images",
    "KeepPositions",
    "L2Norm",
    "L2NormConfig",
    "NoCompressionConfig",
    "OneVision",
    "Pooling",
    "PoolingConfig",
    "PruneVid",
    "PruneVidConfig",
    "RandomConfig",
    "RandomTokens",
    "Request",
    "Scissor",
    "ScissorConfig",
    "ScissorError",
    "Session",
    "StreamingScissor",
    "ToMe",
    "ToMeConfig",
    "Turn",
    "Unified",
    "UnifiedConfig",
    "UniformConfig",
    "UniformFrames",
    "UniformFramesConfig",
    "UniformTokens",
    "VidCom2",
    "VidCom2Config",
    "VideoClip",
    "VisionZip",
    "VisionZipConfig",
    "VisualBudget",
    "__version__",
    "ask",
    "ask_batch",
    "build_compressor",
    "compress",
    "compress_batch",
    "load_config",
    "load_model",
    "load_model_from",
    "read_video",
    "visual_budget",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
