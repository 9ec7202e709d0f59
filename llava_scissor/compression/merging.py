"""Means of components, and the merge of all original tokens into the kept ones."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from llava_scissor.compression.similarity import BLOCK_ENTRIES, Directions

ROWS_EACH = 2**14
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
    tokens: Directions, representatives: Directions, component: Int64[Tensor, " n"]
) -> Int64[Tensor, " n"]:
    """Find for each token the most similar representative (ties: lowest index).

    Args:
        tokens: N tokens.
        representatives: K representatives.
        component: the component of each token. A zero-norm token, which is similar to nothing, goes to its own,
            and so does every token if all representatives have zero norm; no other token goes to a
            representative of zero norm.

    Returns:
        Index of a representative for each token (N,).

    Cost: N * K * D multiply-adds; memory for one block of similarities.
    """
    count = representatives.is_zero.numel()
    nearest = torch.empty_like(component)
    for rows in torch.arange(component.numel()).split(max(1, BLOCK_ENTRIES // count)):
        block = slice(int(rows[0]), int(rows[-1]) + 1)
        similarity = tokens.unit[block] @ representatives.unit.T
        if representatives.has_zero:
            similarity.masked_fill_(representatives.is_zero, -torch.inf)
        nearest[block] = similarity.argmax(dim=1)
    if not (tokens.has_zero or representatives.has_zero):
        return nearest
    keeps_own = tokens.is_zero | representatives.is_zero.all()
    return component.where(keeps_own, nearest)


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
