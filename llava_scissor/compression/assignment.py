"""The nearest kept token of every original one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from scipy.spatial import KDTree
from torch import Tensor

from llava_scissor.compression import precision
from llava_scissor.compression.indexing import count_labels, find_nonzero, masked
from llava_scissor.compression.similarity import (
    Directions,
    rough_similarity_of_pairs,
    similarity_of_all,
    similarity_of_pairs,
)
from llava_scissor.compression.token_sets import FEW, default_block_size

TOKENS_EACH = 2**10
"""Tokens assigned at a time on a CPU."""

SLACK = 2.0**-18
"""More than the similarity of two tokens differs from the cosine of their angle."""

NEARBY = 2.0**-7
"""More than the distance of two unit vectors whose similarity is that of a vector with itself, about
(4 * SLACK)^0.5."""

NUM_AXES = 8
"""Coordinates in which representatives are looked for nearby: those that vary most."""

FEW_ROWS = 2**6
"""Representatives, about, that tell which coordinates vary most."""

MANY_ALONE = 2**16
"""So many similarities are worth the search for representatives nearby."""


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
        component: the component of each token, of which its representative is the mean. A zero-norm token, which
            is similar to nothing, goes to its own, and so does every token if all representatives have zero norm;
            no other token goes to a representative of zero norm.
        block_size: similarities held at a time; None for the device's default.

    Returns:
        Index of a representative for each token (N,).

    Cost: at most N * K * D multiply-adds, much less for components of one token and for large ones that lie apart;
    memory for one block of similarities.
    """
    nearest, device = component.clone(), component.device
    groups = _Groups(tokens, representatives, component, block_size or default_block_size(device))
    has_zero = tokens.has_zero or representatives.has_zero
    rows = torch.arange(len(component), device=device) if has_zero else groups.unsettled()
    for group, reach in groups.plain(rows) if has_zero else groups.with_reach(rows):
        nearest[group] = _nearest(tokens, group, representatives, reach)
    keeps_own = tokens.is_zero | representatives.is_zero.all()
    return component.where(keeps_own, nearest) if has_zero else nearest


Group = tuple[Tensor, Tensor | None]
"""Some tokens, and the representatives that could be nearest to one of them, ascending; None for all."""


@dataclass(frozen=True, eq=False)
class _Groups:
    """The tokens, some at a time, so that at most `block_size` similarities are looked at together."""

    tokens: Directions
    representatives: Directions
    component: Int64[Tensor, " n"]
    block_size: int

    @property
    def count(self) -> int:
        """Number of representatives."""
        return self.representatives.is_zero.numel()

    @property
    def rows_each(self) -> int:
        """Tokens that are compared with all representatives at a time."""
        most = max(1, self.block_size // self.count)
        return min(most, TOKENS_EACH) if precision.on_cpu(self.component.device) else most

    def unsettled(self) -> Int64[Tensor, " r"]:
        """Return all tokens but those that are a representative themselves, if no other one can be as near.

        Vectors whose similarity is that of a vector with itself are at most `NEARBY` apart, and in some of their
        coordinates, too. A tree of those coordinates finds the ones that are. Only where many could be settled.
        """
        everyone, to = torch.arange(len(self.component), device=self.component.device), self.representatives
        if not precision.on_cpu(everyone.device) or self.tokens.is_scaled or to.is_scaled:
            return everyone
        is_alone = count_labels(self.component, self.count) == 1
        if int(is_alone.sum()) * self.count < MANY_ALONE:
            return everyone
        some = to.coarse[:: 1 + self.count // FEW_ROWS].float()
        spread = (some - some.mean(dim=0)).square_().sum(dim=0)
        axes = spread.argsort(descending=True, stable=True)[:NUM_AXES]
        points = (to.tokens[:].index_select(1, axes) / to.norm[:, None]).double().numpy()
        distance, _ = KDTree(points).query(points, k=2, distance_upper_bound=NEARBY)
        is_settled = is_alone & torch.from_numpy(distance[:, 1] > NEARBY)
        return everyone[~is_settled[self.component]]

    def plain(self, rows: Int64[Tensor, " r"]) -> Iterator[Group]:
        """Yield tokens that are to be compared with all representatives."""
        return ((group, None) for group in _parts(rows, self.rows_each))

    def with_reach(self, rows: Int64[Tensor, " r"]) -> Iterator[Group]:
        """Yield those of each large component with what is in their reach, then the others."""
        if len(rows) <= self.rows_each:
            yield from self.plain(rows)
            return
        size = count_labels(self.component[rows], self.count)
        by_size = size.argsort(descending=True, stable=True)
        rank = torch.empty_like(by_size).scatter_(0, by_size, torch.arange(self.count, device=rows.device))
        rows = rows[rank[self.component[rows]].argsort(stable=True)]
        large = by_size[: int((size >= FEW).sum())]  # for smaller ones it would not pay
        for centers in _parts(large, max(1, self.block_size // self.count)):
            num_mine = int(size[centers].sum())
            reach = _Reach(self.tokens, self.representatives, centers)
            for group in _parts(rows[:num_mine], max(self.rows_each, TOKENS_EACH)):
                group, within = reach.of(group, rank[self.component[group]] - rank[centers[0]])
                for part in _parts(group, max(1, self.block_size // max(1, len(within)))):
                    yield part, within
            rows = rows[num_mine:]
        yield from self.plain(rows)


def _parts(values: Int64[Tensor, " n"], size: int) -> Iterator[Int64[Tensor, " m"]]:
    return (values[first : first + size] for first in range(0, len(values), size))


class _Reach:
    """Which representatives can be nearer to a token than that of its own component.

    By the triangle inequality of angles, such a one lies at most twice as far from the token's own representative
    as the token does.
    """

    def __init__(self, tokens: Directions, representatives: Directions, centers: Int64[Tensor, " c"]):
        """Compare some representatives with all."""
        (self.left, left_error), (right, right_error) = next(tokens.formats), next(representatives.formats)
        self.centers = right.index_select(0, centers)
        self.to_all = precision.product(self.centers[None], right[None])[0]
        width = right.shape[1]
        self.token_error = precision.product_error(right.dtype, width, left_error, right_error) + SLACK
        self.error = precision.product_error(right.dtype, width, right_error, right_error) + SLACK

    def of(self, rows: Int64[Tensor, " r"], own: Int64[Tensor, " r"]) -> tuple[Tensor, Tensor]:
        """Return those of some tokens that have more than their own representative in reach, and all they have.

        Args:
            rows: tokens.
            own: places of their own representatives among the centers, ascending.
        """
        first, last = int(own[0]), int(own[-1]) + 1
        own = own - first
        left, right = self.left.index_select(0, rows), self.centers[first:last]
        to_own = precision.product(left[None], right[None])[0].gather(1, own[:, None])[:, 0].float()
        cosine = to_own.new_ones(last - first)  # at most 1
        cosine.scatter_reduce_(0, own, to_own, "amin").sub_(self.token_error).clamp_(min=0)
        enough = 2 * cosine * cosine - 1 - self.error
        is_near = self.to_all[first:last].float() >= enough[:, None]
        has_others = is_near.sum(dim=1) > 1
        (rows,) = masked(has_others[own], rows)
        return rows, is_near[has_others].any(dim=0).nonzero()[:, 0]


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
    has_several = count_labels(row, len(rows)) > 1
    contested = has_several.nonzero()[:, 0]
    is_open = has_several[row]
    row, column = masked(is_open, (has_several.cumsum(0) - 1)[row], column)
    if contested.numel():
        nearest[contested] = _best(tokens.units_at(rows[contested]), row, representatives.unit, column)
    return nearest


def _best(left: Tensor, row: Tensor, right: Tensor, column: Tensor) -> Int64[Tensor, " r"]:
    """Return the first of the most similar candidates of each row."""
    similarity, error = rough_similarity_of_pairs(left, row, right, column)
    is_best = similarity >= _best_of_row(similarity, row, len(left))[row] - 2 * error
    row, column, similarity = masked(is_best, row, column, similarity)
    is_open = count_labels(row, len(left))[row] > 1
    if error and bool(is_open.any()):
        similarity[is_open] = similarity_of_pairs(left, row[is_open], right, column[is_open])
        is_best = similarity == _best_of_row(similarity, row, len(left))[row]
        row, column = masked(is_best, row, column)
    return row.new_full((len(left),), len(right)).scatter_reduce_(0, row, column, "amin")


def _best_of_row(values: Tensor, row: Tensor, num_rows: int) -> Tensor:
    return values.new_full((num_rows,), -torch.inf).scatter_reduce_(0, row, values, "amax")
