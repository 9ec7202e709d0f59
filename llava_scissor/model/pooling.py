"""Fewer visual tokens per frame by bilinear interpolation of the patch grid."""

from __future__ import annotations

import math

from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from llava_scissor.errors import InputError


def pool_frames(patches: Float[Tensor, "f n d"], stride: int) -> Float[Tensor, "f p d"]:
    """Shrink each frame's square grid of s x s patches to ceil(s / stride) on a side.

    Args:
        patches: projected patches, row-major inside a frame (F, s * s, D), any float dtype.
        stride: patches along a side for one visual token, at least 1.

    Returns:
        Visual tokens (F, ceil(s / stride) ** 2, D), row-major, in the input's dtype and on its device.

    Raises:
        InputError: the number of patches is not a square.

    Reference: bilinear with align_corners=False and without antialiasing, so every output reads at most four
    patches; with 27 patches a side and stride 2 it is not the average over an area.
    """
    side = math.isqrt(patches.shape[1])
    if side * side != patches.shape[1]:
        raise InputError(f"pooling needs a square grid of patches, got {patches.shape[1]} patches a frame")
    pooled_side = math.ceil(side / stride)
    grid = rearrange(patches, "f (h w) d -> f d h w", h=side)
    pooled = functional.interpolate(
        grid, size=(pooled_side, pooled_side), mode="bilinear", align_corners=False, antialias=False
    )
    return rearrange(pooled, "f d h w -> f (h w) d")
