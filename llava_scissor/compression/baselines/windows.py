"""Positions that do not change during a window of frames, for the methods that keep them once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from llava_scissor.compression.baselines.shares import weighted_shares

Group = Int64[Tensor, "_w _n"]
"""Rows to choose from; each column lists the frame-major indices of the tokens whose mean the row is."""

_STEP = 0.05


def enough_groups(groups_at: Callable[[float], list[Group]], tau: float, count: int) -> list[Group]:
    """Raise tau by steps until the groups have at least `count` rows; above 1 every token is a row."""
    while True:
        groups = groups_at(tau)
        if sum(group.shape[1] for group in groups) >= count:
            return groups
        tau += _STEP


def share_out(groups: list[Group], count: int) -> list[tuple[Group, int]]:
    """Split a budget over groups in proportion to their rows; groups that get nothing are left out."""
    sizes = [group.shape[1] for group in groups]
    shares = weighted_shares(count, sizes, sizes)
    return [(group, share) for group, share in zip(groups, shares, strict=True) if share]


def static_and_dynamic(windows: Iterable[tuple[int, int, Bool[Tensor, " p"]]]) -> list[Group]:
    """Return for each window its static positions as one group, then for each frame the other positions as one.

    Args:
        windows: first frame, the frame behind the last, and which positions are static.
    """
    groups = []
    for start, stop, is_static in windows:
        size = len(is_static)
        index = torch.arange(start * size, stop * size, device=is_static.device).view(-1, size)
        groups += [index[:, is_static], *(row[None, ~is_static] for row in index)]
    return [group for group in groups if group.numel()]
