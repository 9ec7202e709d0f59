"""Where in the prompt kept tokens stand if they keep their places."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from llava_scissor.compression.protocol import CompressionResult


def mean_places(component: Int64[Tensor, " n"], count: int) -> Float64[Tensor, " k"]:
    """Return the mean index of the tokens of each component, the same to the last bit on every device."""
    index = torch.arange(component.numel(), device=component.device)
    total = torch.zeros(count, dtype=torch.int64, device=index.device).index_add_(0, component, index)
    return total.double() / torch.bincount(component, minlength=count)


def numbers_in_order(component: Int64[Tensor, " n"], count: int) -> Int64[Tensor, " k"]:
    """Return the new number of each component if they are sorted by mean index (ties: as numbered before)."""
    order = mean_places(component, count).argsort(stable=True)
    return torch.empty_like(order).scatter_(0, order, torch.arange(count, device=order.device))


def at_places(result: CompressionResult) -> CompressionResult:
    """Give each kept token the mean index of its component, rounded half up, as its position.

    Args:
        result: its components are numbered by mean index.
    """
    positions = (mean_places(result.component, result.num_kept) + 0.5).floor().long()
    return replace(result, positions=positions)
