"""Means of components, and the merge of all original tokens into the kept ones."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

ROWS_EACH = 2**9
"""Tokens converted to float32 at a time."""

PIECE = 2**6
"""Tokens that a GPU adds one after the other."""


def count_labels(labels: Int64[Tensor, " n"], size: int) -> Int64[Tensor, " k"]:
    """Count how often each of the labels 0..size-1 occurs; the host does not wait."""
    if labels.device.type == "cpu":
        return torch.bincount(labels, minlength=size)
    return labels.new_zeros(size).scatter_add_(0, labels, torch.ones_like(labels))


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
    num_members = count_labels(labels, count)
    if labels.device.type == "cpu":
        total = torch.zeros(count, tokens.shape[1])
        for part, values in zip(labels.split(ROWS_EACH), tokens.split(ROWS_EACH), strict=True):
            total.index_add_(0, part, values.float())
    else:
        total = _sum_segments(tokens[labels.argsort(stable=True)].float(), num_members)
    return total, num_members[:, None].float()


def _sum_segments(tokens: Float32[Tensor, "n d"], num_members: Int64[Tensor, " k"]) -> Float32[Tensor, "k d"]:
    """Add up segments of successive tokens on a GPU in one order, which `index_add_` does not keep there.

    A GPU adds a segment one token after the other: long ones are cut into pieces, whose sums are added.
    """
    num_pieces = (num_members + PIECE - 1) // PIECE
    most = min(len(tokens), len(tokens) // PIECE + len(num_members))
    piece, end = torch.arange(most, device=tokens.device), num_pieces.cumsum(0)
    segment = torch.searchsorted(end, piece, right=True).clamp_(max=len(end) - 1)
    place = piece - (end - num_pieces)[segment]
    size = (num_members[segment] - place * PIECE).clamp_(0, PIECE)
    pieces = torch.segment_reduce(tokens, "sum", lengths=size, axis=0, unsafe=True)
    return torch.segment_reduce(pieces, "sum", lengths=num_pieces, axis=0, unsafe=True)


def mean_by_label(
    tokens: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], count: int
) -> Float32[Tensor, "k d"]:
    """Return the representative of each component: the mean of its tokens; 0 where there are none."""
    total, num_members = sum_by_label(tokens, labels, count)
    return total.div_(num_members.clamp_(min=1))


def merge(
    tokens: Float[Tensor, "n d"],
    assignment: Int64[Tensor, " n"],
    representatives: Float32[Tensor, "k d"],
) -> Float32[Tensor, "k d"]:
    """Average each representative with the original tokens assigned to it.

    Returns:
        (sum of the tokens + representative) / (their number + 1); a representative that no token
        joins stays as it is.

    Reference: LLaVA-Scissor (arXiv 2506.21862), section 3.2.
    """
    total, num_members = sum_by_label(tokens, assignment, representatives.shape[0])
    return total.add_(representatives).div_(num_members + 1)


def scaled(tokens: Float[Tensor, "f p d"], shift: int) -> Float[Tensor, "n d"]:
    """Return all tokens as one list, multiplied by 2^-shift, which rounds nothing."""
    flat = tokens.flatten(0, 1)
    return flat.double().mul_(2.0**-shift).float() if shift else flat


def unscaled(tokens: Float32[Tensor, "k d"], shift: int, dtype: torch.dtype) -> Float[Tensor, "k d"]:
    """Undo `scaled`, and convert to a number format."""
    return (tokens.double().mul_(2.0**shift) if shift else tokens).to(dtype)
