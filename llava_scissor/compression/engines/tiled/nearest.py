"""The most similar representative of every token."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from llava_scissor.compression.engines.tiled import screening
from llava_scissor.compression.engines.tiled.similarity import (
    Directions,
    similarity_of_all,
    similarity_of_pairs,
)
from llava_scissor.compression.engines.tiled.tiles import find_nonzero, masked
from llava_scissor.compression.engines.tiled.tuning import tuning_for
from llava_scissor.compression.merging import count_labels


def nearest(
    tokens: Directions,
    representatives: Directions,
    component: Int64[Tensor, " n"],
    block_size: int | None = None,
) -> Int64[Tensor, " n"]:
    """Find for each token the most similar representative; see `Engine.nearest`.

    Args:
        tokens: N tokens.
        representatives: K representatives.
        component: the component of each token.
        block_size: similarities held at a time; None for the device's default.

    Cost: N * K * D multiply-adds; memory for one block of similarities.
    """
    tuning = tuning_for(component.device)
    rows_each = max(1, (block_size or tuning.block_size) // representatives.is_zero.numel())
    rows_each = min(rows_each, tuning.tokens_each or rows_each)
    rows = torch.arange(len(component), device=component.device)
    found = torch.cat([_nearest(tokens, group, representatives) for group in rows.split(rows_each)])
    return component.where(tokens.is_zero | representatives.is_zero.all(), found)


def _nearest(tokens: Directions, rows: Int64[Tensor, " r"], to: Directions) -> Int64[Tensor, " r"]:
    """Find the nearest of some tokens: a product with a bounded error names candidates, similarity decides."""
    for (left, left_error), (right, right_error) in zip(tokens.formats, to.formats, strict=True):
        values = screening.product(left[rows][None], right[None])[0]
        if to.has_zero:
            values.masked_fill_(to.is_zero, -torch.inf)
        error = screening.product_error(left.dtype, left.shape[1], left_error, right_error)
        best = values.amax(dim=1)
        enough = best.float().clamp_(max=1) - 2 * error
        lowest = torch.nextafter(enough.to(values.dtype), best.new_tensor(-torch.inf))
        is_candidate = values.ge_(lowest[:, None])
        if tokens.has_zero:
            is_candidate.mul_(~tokens.is_zero[rows, None])
        index = find_nonzero(is_candidate, len(rows) + values.numel() // tuning_for(rows.device).few)
        if index is not None:
            return _decide(tokens, rows, to, index // values.shape[1], index % values.shape[1])
    values = similarity_of_all(tokens.units_at(rows)[None], to.unit[None])[0]
    return values.masked_fill_(to.is_zero, -torch.inf).argmax(dim=1)


def _decide(tokens: Directions, rows: Tensor, to: Directions, row: Tensor, column: Tensor) -> Tensor:
    """Compare candidates, tokens `rows[row]` and representatives `column`, by similarity."""
    found = torch.zeros_like(rows).index_copy_(0, row, column)
    for is_rough in (True, False):
        is_open = count_labels(row, len(rows))[row] > 1
        row, column = masked(is_open, row, column)
        if not row.numel():
            break
        values, error = similarity_of_pairs(tokens, rows[row], to, column, is_rough)
        best = values.new_full((len(rows),), -torch.inf).scatter_reduce_(0, row, values, "amax")
        row, column = masked(values >= best[row] - 2 * error, row, column)
        first = torch.full_like(rows, len(to.norm)).scatter_reduce_(0, row, column, "amin")
        found = found.where(first == len(to.norm), first)
    return found
