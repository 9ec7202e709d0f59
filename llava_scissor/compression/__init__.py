"""Compressing the visual tokens of a video: tensors in, tensors out."""

from llava_scissor.compression.positions import KeepPositions
from llava_scissor.compression.protocol import CompressionResult, Compressor, Identity
from llava_scissor.compression.registry import build_compressor
from llava_scissor.compression.scissor import Scissor, compress, compress_batch
from llava_scissor.compression.streaming import StreamingScissor
from llava_scissor.config import ScissorConfig

__all__ = [
    "CompressionResult",
    "Compressor",
    "Identity",
    "KeepPositions",
    "Scissor",
    "ScissorConfig",
    "StreamingScissor",
    "build_compressor",
    "compress",
    "compress_batch",
]
