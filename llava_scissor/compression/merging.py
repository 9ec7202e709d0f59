"""Means of components, and the merge of all original tokens into the kept ones."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from llava_scissor.compression import precision
from llava_scissor.compression.indexing import PatchedRows, count_labels

ROWS_EACH = 2**9
"""Tokens converted to float32 at a time."""


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
    num_members = count_labels(labels, count)
    if precision.on_cpu(labels.device):
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
