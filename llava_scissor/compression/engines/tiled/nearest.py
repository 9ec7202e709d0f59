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

SLACK = 2.0**-18
"""More than the similarity of two tokens differs from the cosine of their angle."""


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

    Cost: N * K * D multiply-adds at most; in long videos, tokens of large components are compared only with what
        is in reach. Memory for one block of similarities.
    """
    tuning, num_kept = tuning_for(component.device), representatives.is_zero.numel()
    block_size = block_size or tuning.block_size
    rows_each = max(1, block_size // num_kept)
    rows_each = min(rows_each, tuning.tokens_each or rows_each)
    rows, found = torch.arange(len(component), device=component.device), component.clone()
    has_zero = tokens.has_zero or representatives.has_zero
    if len(rows) * num_kept >= tuning.many_similarities and not has_zero:
        rows, found = _nearest_in_reach(tokens, representatives, component, rows_each, block_size)
    for group in rows.split(rows_each) if len(rows) else ():
        found[group] = _nearest(tokens, group, representatives)
    return component.where(tokens.is_zero | representatives.is_zero.all(), found)


def _nearest_in_reach(
    tokens: Directions, to: Directions, component: Tensor, rows_each: int, block_size: int
) -> tuple[Int64[Tensor, " r"], Int64[Tensor, " n"]]:
    """Find the nearest for the tokens of large components; also return the tokens that are left.

    By the triangle inequality of angles, a representative that is nearer than a token's own lies at most twice as
    far from that one as the token does.
    """
    size = count_labels(component, to.is_zero.numel())
    by_size = size.argsort(descending=True, stable=True)
    rank = torch.empty_like(by_size).scatter_(0, by_size, torch.arange(len(size), device=size.device))
    rows, found = rank[component].argsort(stable=True), component.clone()
    (left, left_error), (right, right_error) = next(tokens.formats), next(to.formats)
    to_token, to_center = (
        screening.product_error(right.dtype, right.shape[1], error, right_error) + SLACK
        for error in (left_error, right_error)
    )
    large = by_size[: int((size >= tuning_for(size.device).few).sum())]  # for smaller ones it would not pay
    for centers in large.split(max(1, block_size // len(size))):
        between = screening.product(right[centers][None], right[None])[0].float()
        num_mine = int(size[centers].sum())
        for group in rows[:num_mine].split(rows_each):
            own = rank[component[group]] - rank[centers[0]]
            first, last = int(own[0]), int(own[-1]) + 1  # ascending
            cosine = screening.product(left[group][None], right[centers[first:last]][None])[0]
            cosine = cosine.gather(1, own[:, None] - first)[:, 0].float()
            least = cosine.new_ones(last - first)
            least.scatter_reduce_(0, own - first, cosine, "amin").sub_(to_token).clamp_(min=0)
            is_near = between[first:last] >= (2 * least * least - 1 - to_center)[:, None]
            has_others = is_near.sum(dim=1) > 1
            group = group[has_others[own - first]]
            reach = is_near[has_others].any(dim=0).nonzero()[:, 0]
            for part in group.split(max(1, block_size // len(reach))) if len(reach) else ():
                found[part] = _nearest(tokens, part, to, reach)
        rows = rows[num_mine:]
    return rows, found


def _nearest(
    tokens: Directions, rows: Int64[Tensor, " r"], to: Directions, reach: Int64[Tensor, " k"] | None = None
) -> Int64[Tensor, " r"]:
    """Find the nearest of some tokens: a product with a bounded error names candidates, similarity decides.

    Args:
        tokens: all tokens.
        rows: which to look at.
        to: all representatives.
        reach: those that can be the nearest, ascending; None for all.
    """
    everywhere = slice(None) if reach is None else reach
    for (left, left_error), (right, right_error) in zip(tokens.formats, to.formats, strict=True):
        values = screening.product(left[rows][None], right[everywhere][None])[0]
        if to.has_zero:
            values.masked_fill_(to.is_zero[everywhere], -torch.inf)
        error = screening.product_error(left.dtype, left.shape[1], left_error, right_error)
        best = values.amax(dim=1)
        enough = best.float().clamp_(max=1) - 2 * error
        lowest = torch.nextafter(enough.to(values.dtype), best.new_tensor(-torch.inf))
        is_candidate = values.ge_(lowest[:, None])
        if tokens.has_zero:
            is_candidate.mul_(~tokens.is_zero[rows, None])
        index = find_nonzero(is_candidate, len(rows) + values.numel() // tuning_for(rows.device).few)
        if index is not None:
            row, column = index // values.shape[1], index % values.shape[1]
            return _decide(tokens, rows, to, row, column if reach is None else reach[column])
    values = similarity_of_all(tokens.units_at(rows)[None], to.unit[everywhere][None])[0]
    nearest = values.masked_fill_(to.is_zero[everywhere], -torch.inf).argmax(dim=1)
    return nearest if reach is None else reach[nearest]


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
