"""Means of components, and the merge of all original tokens into the kept ones."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from llava_scissor.compression import precision
from llava_scissor.compression.links import find_nonzero
from llava_scissor.compression.patched import PatchedRows
from llava_scissor.compression.similarity import (
    Directions,
    rough_similarity_of_pairs,
    similarity_of_all,
    similarity_of_pairs,
)
from llava_scissor.compression.token_sets import FEW, default_block_size

ROWS_EACH = 2**9
"""Tokens converted to float32 at a time."""

TOKENS_EACH = 2**10
"""Tokens assigned at a time on a CPU."""

SLACK = 2.0**-18
"""More than the similarity of two tokens differs from the cosine of their angle."""


def sum_by_label(
    tokens: Float[Tensor, "n d"] | PatchedRows, labels: Int64[Tensor, " n"], count: int
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
    if labels.device.type == "cpu":
        total = torch.zeros(count, tokens.shape[1])
        for first in range(0, len(labels), ROWS_EACH):
            part = slice(first, first + ROWS_EACH)
            total.index_add_(0, labels[part], tokens[part].float())
    else:
        # index_add_ adds in any order on a GPU; sorted segments are added in one.
        grouped = tokens[labels.argsort(stable=True)].float()
        total = torch.segment_reduce(grouped, "sum", lengths=num_members, axis=0, unsafe=True)
    return total, num_members[:, None].float()


def mean_by_label(
    tokens: Float[Tensor, "n d"] | PatchedRows, labels: Int64[Tensor, " n"], count: int
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

    Cost: at most N * K * D multiply-adds, much less for the tokens of large components that lie apart; memory for
    one block of similarities.
    """
    count = representatives.is_zero.numel()
    rows_each = max(1, (block_size or default_block_size(component.device)) // count)
    if component.device.type == "cpu":
        rows_each = min(rows_each, TOKENS_EACH)
    has_zero = tokens.has_zero or representatives.has_zero
    nearest = torch.empty_like(component)
    for rows in _large_components_first(component, count).split(rows_each):
        reach = None
        if rows_each < len(component) and not has_zero:
            reach = _within_reach(tokens, rows, representatives, component[rows])
        nearest[rows] = _nearest(tokens, rows, representatives, reach)
    if not has_zero:
        return nearest
    keeps_own = tokens.is_zero | representatives.is_zero.all()
    return component.where(keeps_own, nearest)


def _large_components_first(component: Int64[Tensor, " n"], count: int) -> Int64[Tensor, " n"]:
    """Order tokens so that those of a component are next to each other."""
    size = torch.bincount(component, minlength=count)
    return (component - size[component] * count).argsort(stable=True)


def _within_reach(
    tokens: Directions, rows: Tensor, representatives: Directions, component: Int64[Tensor, " r"]
) -> Int64[Tensor, " k"] | None:
    """Find the representatives that could be nearer to one of some tokens than that of its own component.

    By the triangle inequality of angles, such a one lies at most twice as far from the token's own representative
    as the token does.

    Returns:
        Ascending indices; None where looking for them would not pay or leave most.
    """
    own, place = component.unique(return_inverse=True)
    if len(own) * FEW > len(rows):
        return None
    (left, left_error), (right, right_error) = next(tokens.formats), next(representatives.formats)
    centers = right.index_select(0, own)
    error = precision.product_error(left.dtype, left.shape[1], left_error, right_error)
    to_own = precision.product(left.index_select(0, rows)[None], centers[None])[0].gather(1, place[:, None])
    cosine = to_own.new_ones(len(own), dtype=torch.float32)  # at most 1
    cosine.scatter_reduce_(0, place, to_own[:, 0].float(), "amin").sub_(error + SLACK).clamp_(min=0)
    error = precision.product_error(right.dtype, right.shape[1], right_error, right_error)
    among = precision.product(centers[None], right[None])[0]
    is_near = among.float() >= (2 * cosine * cosine - 1 - error - SLACK)[:, None]
    reach = is_near.any(dim=0).nonzero()[:, 0]
    return reach if 2 * len(reach) < len(right) else None


def _nearest(
    tokens: Directions, rows: Tensor, representatives: Directions, reach: Tensor | None
) -> Int64[Tensor, " r"]:
    """Find the nearest of some tokens: a product with a bounded error names the candidates, similarity decides.

    Args:
        tokens: all tokens.
        rows: which to look at.
        representatives: all representatives.
        reach: those that can be the nearest, ascending; None for all.
    """

    def among(vectors: Tensor) -> Tensor:
        return vectors if reach is None else vectors.index_select(0, reach)

    for (left, left_error), (right, right_error) in zip(tokens.formats, representatives.formats, strict=True):
        values = precision.product(left.index_select(0, rows)[None], among(right)[None])[0]
        if representatives.has_zero:
            values.masked_fill_(representatives.is_zero, -torch.inf)
        error = precision.product_error(left.dtype, left.shape[1], left_error, right_error)
        best = values.amax(dim=1)
        enough = best.float().clamp_(max=1) - 2 * error
        lowest = torch.nextafter(enough.to(values.dtype), best.new_tensor(-torch.inf))
        is_candidate = values.ge_(lowest[:, None])
        if tokens.has_zero:
            is_candidate.mul_(~tokens.is_zero[rows, None])
        places = find_nonzero(is_candidate, len(rows) + values.numel() // FEW)
        if places is not None:
            row, column = places // values.shape[1], places % values.shape[1]
            column = column if reach is None else reach[column]
            return _decide(tokens, rows, representatives, row, column)
    values = similarity_of_all(tokens.units_at(rows)[None], among(representatives.unit)[None])[0]
    if representatives.has_zero:
        values.masked_fill_(representatives.is_zero, -torch.inf)
    nearest = values.argmax(dim=1)
    return nearest if reach is None else reach[nearest]


def _decide(
    tokens: Directions, rows: Tensor, representatives: Directions, row: Tensor, column: Tensor
) -> Int64[Tensor, " r"]:
    """Compare candidates, tokens at places `row` of `rows`, ascending, with representatives, by similarity."""
    nearest = torch.zeros_like(rows).index_copy_(0, row, column)
    has_several = torch.bincount(row, minlength=len(rows)) > 1
    contested = has_several.nonzero()[:, 0]
    is_open = has_several[row]
    row, column = (has_several.cumsum(0) - 1)[row[is_open]], column[is_open]
    if contested.numel():
        nearest[contested] = _best(tokens.units_at(rows[contested]), row, representatives.unit, column)
    return nearest


def _best(left: Tensor, row: Tensor, right: Tensor, column: Tensor) -> Int64[Tensor, " r"]:
    """Return the first of the most similar candidates of each row."""
    similarity, error = rough_similarity_of_pairs(left, row, right, column)
    is_best = similarity >= _best_of_row(similarity, row, len(left))[row] - 2 * error
    row, column, similarity = row[is_best], column[is_best], similarity[is_best]
    is_open = torch.bincount(row, minlength=len(left))[row] > 1
    if error and bool(is_open.any()):
        similarity[is_open] = similarity_of_pairs(left, row[is_open], right, column[is_open])
        is_best = similarity == _best_of_row(similarity, row, len(left))[row]
        row, column = row[is_best], column[is_best]
    return row.new_full((len(left),), len(right)).scatter_reduce_(0, row, column, "amin")


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
