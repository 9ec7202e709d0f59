"""Fast matrix products with a proven bound on their error.

A product in low precision settles every comparison that is further from its threshold than the bound. Only the
rest is computed exactly, so the decisions are those of the exact similarities. docs/numerics.md has the proof.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

UNIT_ROUNDOFF = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-24}
"""Largest relative error of rounding to a number format."""


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return the number format in which a device multiplies matrices fastest.

    bfloat16 on a CPU that has instructions for it, float16 with float32 sums on a CUDA GPU (from torch 2.8 on,
    which can return such sums as they are), else float32.
    """
    if device.type == "cuda":
        return torch.float16 if TorchVersion(torch.__version__) >= "2.8" else torch.float32
    return torch.bfloat16 if device.type == "cpu" and _has_fast_bfloat16() else torch.float32


def _has_fast_bfloat16() -> bool:
    has_instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled and has_instructions)


def product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply each row of `left` (g, r, d) with each row of `right` (g, c, d): (g, r, c).

    float16 products are added and returned in float32, bfloat16 ones are returned in bfloat16.
    """
    if left.dtype == torch.float16:
        return torch.bmm(left, right.mT, out_dtype=torch.float32)
    if len(left) == 1:  # up to twice as fast as a batch of one
        return torch.mm(left[0], right[0].mT)[None]
    return torch.bmm(left, right.mT)


def product_error(dtype: torch.dtype, width: int, left: float = 0.0, right: float = 0.0) -> float:
    """Bound the distance of `product` of unit vectors in a number format from their similarity.

    The errors of the vectors (Cauchy-Schwarz), of the additions, made in float32, and of the result. Only
    results below 1 count for the last: similarities end at 1, so what is above is off by no more than 1 is.

    Args:
        dtype: format of the vectors.
        width: D.
        left: largest distance of a rounded vector of the left side from its float32 unit vector.
        right: the same of the right side.
    """
    of_vectors = 1.001 * (left + right + left * right)
    if dtype == torch.float32:
        return of_vectors + 1.01 * (width + 4) * UNIT_ROUNDOFF[dtype]
    of_result = UNIT_ROUNDOFF[dtype] / 2 if dtype == torch.bfloat16 else 0.0
    return of_vectors + of_result + 4 * (width + 8) * UNIT_ROUNDOFF[torch.float32]


def matrix_error(dtype: torch.dtype) -> float:
    """Return the distance from a unit vector that a matrix product may add by itself to vectors of a format.

    torch may be told to multiply float32 matrices in a shorter format.
    """
    is_shortened = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return UNIT_ROUNDOFF[torch.bfloat16] if is_shortened else 0.0


def rounding_error(exact: Tensor, rounded: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the largest distance of a rounded vector from the exact one, rounded up.

    Args:
        exact: float32 vectors.
        rounded: the same in another format.
        out: where the differences go; may be `exact`, which is then lost.
    """
    return 1.001 * torch.linalg.vector_norm(torch.sub(exact, rounded, out=out), dim=-1).amax()


def bracket(tau: float, error: float, dtype: torch.dtype) -> tuple[float, float]:
    """Return (low, high) in `dtype`: a product below `low` is settled as no edge, one above `high` as an edge.

    No product is settled as an edge by more than 1, or as none by less than -1: what lies there is rounding. No
    similarity is above a `tau` of 1.
    """
    if tau >= 1:
        return math.inf, math.inf
    low = round_down(tau - error, dtype) if tau - error > -1 else torch.finfo(dtype).min
    return low, -round_down(-tau - error, dtype) if tau + error < 1 else math.inf


def round_down(value: float, dtype: torch.dtype) -> float:
    """Return the largest number of a format that is not above `value`."""
    info, (_, exponent) = torch.finfo(dtype), math.frexp(value)
    step = info.eps * max(2.0 ** (exponent - 1), info.smallest_normal)
    return math.floor(value / step) * step
