"""Similarities at which single linkage joins parts, approximately, for an estimate."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from llava_scissor.compression.engines.tiled import screening
from llava_scissor.compression.engines.tiled.tiles import TokenSets

SCALE = 2.0**8
"""Unit vectors are rounded to multiples of 1 / SCALE. Their products are then sums of whole numbers below 2^24,
which every number format and every order of addition gives exactly."""


def heights(
    sets: TokenSets, groups: Int64[Tensor, "g k"], size: int
) -> tuple[Float64[np.ndarray, " a"], Float64[np.ndarray, " t"]]:
    """Return the similarities at which single linkage joins parts, approximately; see `Engine.heights`."""
    num_tokens = sets.directions.is_zero.shape[1]
    within = torch.arange(size, device=sets.device) + (num_tokens - size) // 2
    index = (groups[..., None] * num_tokens + within).flatten(1)
    unit = sets.directions.units_at(index.flatten())
    whole = unit.mul_(SCALE).round_().to(screening.fast_dtype(sets.device)).view(*index.shape, -1)
    products = screening.product(whole, whole).bfloat16()  # as coarse as the coarsest format returns them
    distance = 1 - products.float().div_(SCALE**2).clamp_(max=1).cpu().numpy()
    alone = [_joins(group[:size, :size]) for group in distance]
    return np.concatenate(alone), np.concatenate([_joins(group) for group in distance])


def _joins(distance: Float32[np.ndarray, "n n"]) -> Float64[np.ndarray, " n-1"]:
    if len(distance) == 1:
        return np.zeros(0)
    return 1 - linkage(squareform(distance, checks=False), "single")[:, 2]
