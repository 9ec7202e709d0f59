"""Means of components, and the merge of all original tokens into the kept ones."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from llava_scissor.compression import precision
from llava_scissor.compression.components import find_nonzero
from llava_scissor.compression.similarity import (
    Directions,
    rough_similarity_of_pairs,
    similarity_of_all,
    similarity_of_pairs,
)
from llava_scissor.compression.token_sets import FEW, default_block_size

ROWS_EACH = 2**9
"""Tokens converted to float32 at a time."""


def sum_by_label(
    tokens: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], count: int
) -> tuple[Float32[Tensor, "k d"], Float32[Tensor, "k 1"]]:
    """Add up the tokens of each label in float32, the same way every time on every device.

    Args:
        tokens: any floating dtype.
        labels: 0..count-1.
        count: K.

    Returns:
        Sums (K, D) and numbers of tokens (K, 1).
    """
    num_members = torch.bincount(labels, minlength=count)
    if tokens.device.type == "cpu":
        total = torch.zeros(count, tokens.shape[1])
        for part, label in zip(tokens.split(ROWS_EACH), labels.split(ROWS_EACH), strict=True):
            total.index_add_(0, label, part.float())
    else:
        # index_add_ adds in any order on a GPU; sorted segments are added in one.
        grouped = tokens[labels.argsort(stable=True)].float()
        total = torch.segment_reduce(grouped, "sum", lengths=num_members, axis=0, unsafe=True)
    return total, num_members[:, None].float()


def mean_by_label(
    tokens: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], count: int
) -> Float32[Tensor, "k d"]:
    """Return the representative of each component: the mean of its tokens."""
    total, num_members = sum_by_label(tokens, labels, count)
    return total.div_(num_members)


def assign_to_nearest(
    tokens: Directions,
    representatives: Directions,
    component: Int64[Tensor, " n"],
    block_size: int | None = None,
) -> Int64[Tensor, " n"]:
    """Find for each token the most similar representative (ties: lowest index).

    Args:
        tokens: N tokens.
        representatives: K representatives.
        component: the component of each token. A zero-norm token, which is similar to nothing, goes to its own,
            and so does every token if all representatives have zero norm; no other token goes to a
            representative of zero norm.
        block_size: similarities held at a time; None for the device's default.

    Returns:
        Index of a representative for each token (N,).

    Cost: N * K * D multiply-adds; memory for one block of similarities.
    """
    count = representatives.is_zero.numel()
    rows_each = max(1, (block_size or default_block_size(component.device)) // count)
    nearest = torch.empty_like(component)
    for first in range(0, len(component), rows_each):
        rows = slice(first, first + rows_each)
        nearest[rows] = _nearest(tokens, rows, representatives)
    if not (tokens.has_zero or representatives.has_zero):
        return nearest
    keeps_own = tokens.is_zero | representatives.is_zero.all()
    return component.where(keeps_own, nearest)


def _nearest(tokens: Directions, rows: slice, representatives: Directions) -> Int64[Tensor, " r"]:
    """Find the nearest of some tokens: a product with a bounded error names the candidates, similarity decides."""
    targets = representatives.unit
    for (left, left_error), (right, right_error) in zip(tokens.formats, representatives.formats, strict=True):
        values = precision.product(left[None, rows], right[None])[0]
        if representatives.has_zero:
            values.masked_fill_(representatives.is_zero, -torch.inf)
        error = precision.product_error(left.dtype, left.shape[1], left_error, right_error)
        best, nearest = values.max(dim=1)
        enough = best.float().clamp_(max=1) - 2 * error
        lowest = torch.nextafter(enough.to(values.dtype), best.new_tensor(-torch.inf))
        is_candidate = values.ge_(lowest[:, None])
        is_contested = (is_candidate.sum(1, dtype=torch.float32) > 1) & ~tokens.is_zero[rows]
        places = find_nonzero(is_candidate.mul_(is_contested[:, None])[None], values.numel() // FEW)
        if places is not None:
            return _decide(nearest, tokens.unit[rows], targets, places)
    values = similarity_of_all(tokens.unit[rows][None], targets[None])[0]
    if representatives.has_zero:
        values.masked_fill_(representatives.is_zero, -torch.inf)
    return values.argmax(dim=1)


def _decide(nearest: Tensor, left: Tensor, right: Tensor, places: Tensor) -> Int64[Tensor, " r"]:
    """Compare the candidates, given as flat places of (row, representative), by their similarity."""
    row, column = places // len(right), places % len(right)
    similarity, error = rough_similarity_of_pairs(left, row, right, column)
    is_best = similarity >= _best_of_row(similarity, row, len(left))[row] - 2 * error
    row, column, similarity = row[is_best], column[is_best], similarity[is_best]
    is_open = torch.bincount(row, minlength=len(left))[row] > 1
    if error and bool(is_open.any()):
        similarity[is_open] = similarity_of_pairs(left, row[is_open], right, column[is_open])
        is_best = similarity == _best_of_row(similarity, row, len(left))[row]
        row, column = row[is_best], column[is_best]
    best = torch.full_like(nearest, len(right)).scatter_reduce_(0, row, column, "amin")
    return best.where(best < len(right), nearest)


def _best_of_row(values: Tensor, row: Tensor, num_rows: int) -> Tensor:
    return values.new_full((num_rows,), -torch.inf).scatter_reduce_(0, row, values, "amax")


def merge(
    tokens: Float[Tensor, "n d"],
    assignment: Int64[Tensor, " n"],
    representatives: Float32[Tensor, "k d"],
) -> Float32[Tensor, "k d"]:
    """Average each representative with the original tokens assigned to it.

    Returns:
        (sum of the tokens + representative) / (their number + 1); a representative nobody joins stays as it is.

    Reference: LLaVA-Scissor (arXiv 2506.21862), section 3.2.
    """
    total, num_members = sum_by_label(tokens, assignment, representatives.shape[0])
    return total.add_(representatives).div_(num_members + 1)
