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
        Scissor,
        ScissorConfig,
        StreamingScissor,
        build_compressor,
        compress,
        compress_batch,
    )
    from llava_scissor.config import Config, load_config
    from llava_scissor.errors import ScissorError
    from llava_scissor.generation import Answer, Request, Session, ask, ask_batch
    from llava_scissor.model import Images, OneVision, Turn, load_model, load_model_from
    from llava_scissor.video import VideoClip, read_video

_ROOM_OF = {
    **dict.fromkeys(["CompressionResult", "Compressor", "Identity", "Scissor"], "compression"),
    **dict.fromkeys(["StreamingScissor"], "compression"),
    **dict.fromkeys(["build_compressor", "compress", "compress_batch"], "compression"),
    **dict.fromkeys(["Config", "ScissorConfig", "load_config"], "config"),
    **dict.fromkeys(["ScissorError"], "errors"),
    **dict.fromkeys(["Answer", "Request", "Session", "ask", "ask_batch"], "generation"),
    **dict.fromkeys(["Images", "OneVision", "Turn", "load_model", "load_model_from"], "model"),
    **dict.fromkeys(["VideoClip", "read_video"], "video"),
}

__all__ = [
    "Answer",
    "CompressionResult",
    "Compressor",
    "Config",
    "Identity",
    "Images",
    "OneVision",
    "Request",
    "Scissor",
    "ScissorConfig",
    "ScissorError",
    "Session",
    "StreamingScissor",
    "Turn",
    "VideoClip",
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
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
