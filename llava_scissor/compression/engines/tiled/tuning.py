"""The numbers that decide how much is done at a time. None of them changes a result."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True)
class Tuning:
    """Sizes for one kind of device.

    Attributes:
        block_size: similarities held at a time, where the settings give no number.
        whole_sets: similarities of whole sets held at a time; longer sets are cut into rows.
        few: up to one in so many pairs of a tile is listed and computed pair by pair, more as a matrix product.
        few_pairs: so few pairs are computed at once, whether they matter or not.
        many_pairs: listed pairs that are remembered; more are dealt with as they come.
        products_each: products of coordinates formed at a time where single pairs are computed.
        coordinates_each: coordinates that are converted to unit vectors at a time; None for all.
        many_similarities: so many similarities of tokens with representatives are worth finding out first which
            are in reach.
        tokens_each: tokens that are assigned to representatives at a time; None for as many as fit a block.
    """

    block_size: int
    whole_sets: int
    few: int
    few_pairs: int
    many_pairs: int
    products_each: int
    coordinates_each: int | None
    tokens_each: int | None
    many_similarities: int


CPU = Tuning(
    block_size=2**22,  # 8 MiB of bfloat16
    whole_sets=2**19,  # stay in a core's cache
    few=16,
    few_pairs=2**9,
    many_pairs=2**22,
    products_each=2**18,  # stay in a core's cache
    coordinates_each=2**19,
    tokens_each=2**10,
    many_similarities=2**25,
)
"""For a CPU: small blocks for its caches."""

GPU = replace(
    CPU,
    block_size=2**26,  # 256 MiB of float32
    whole_sets=2**26,
    products_each=2**24,
    coordinates_each=None,
    tokens_each=None,
)
"""For every other device: few large blocks."""


def tuning_for(device: torch.device) -> Tuning:
    """Return the numbers for a device."""
    return CPU if device.type == "cpu" else GPU
