"""What methods that keep some tokens unchanged have in common, and evenly spread budgets."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llava_scissor.compression.protocol import CompressionResult, summarize


def select(tokens: Float[Tensor, "f p d"], kept: Int64[Tensor, " k"]) -> CompressionResult:
    """Keep the tokens of the given ascending indices into frame-major order and drop all others."""
    flat = tokens.flatten(0, 1)
    assignment = torch.full((flat.shape[0],), -1, device=tokens.device)
    assignment[kept] = torch.arange(kept.numel(), device=tokens.device)
    return summarize(tokens, flat[kept], assignment, assignment)


def even_shares(total: int, count: int) -> list[int]:
    """Split `total` into `count` integers that differ by at most one, the larger ones spread evenly."""
    bounds = [(2 * i * total + count) // (2 * count) for i in range(count + 1)]
    return [high - low for low, high in pairwise(bounds)]


def even_positions(size: int, count: int) -> list[int]:
    """Return `count` distinct positions spread over 0..size-1, for count <= size."""
    return [(2 * i + 1) * size // (2 * count) for i in range(count)]
