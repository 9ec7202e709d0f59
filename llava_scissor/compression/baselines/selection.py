"""What the peer methods share: exact budgets, highest scores, and building a result from who stays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from llava_scissor.compression.protocol import (
    CompressionResult,
    Identity,
    Needs,
    TowerState,
    budget,
    check_tokens,
    check_tower,
    summarize,
)
from llava_scissor.compression.similarity import directions


@dataclass(frozen=True)
class ExactBudget(ABC):
    """Base of the methods that compare tokens: exactly `budget(retention_ratio, N)` stay, all of them unchanged.

    Attributes:
        retention_ratio: tokens kept / tokens before.
        needs: what the method looks at besides the tokens.
    """

    retention_ratio: float
    needs: ClassVar[Needs] = Needs()

    def __call__(self, tokens: Float[Tensor, "f p d"], tower: TowerState | None = None) -> CompressionResult:
        """Compress one video.

        Args:
            tokens: (F, P, D), any floating dtype and device; not modified.
            tower: what `needs` names; the rest is ignored.

        Raises:
            InputError: tokens of another shape, or with NaN or infinity; something that is needed is not there.
        """
        check_tokens(tokens)
        tower = check_tower(tokens, self, tower)
        unit = directions(tokens).unit
        num_input = tokens.shape[0] * tokens.shape[1]
        count = budget(self.retention_ratio, num_input)
        return Identity()(tokens) if count == num_input else self._keep(tokens, unit, count, tower)

    @abstractmethod
    def _keep(
        self,
        tokens: Float[Tensor, "f p d"],
        unit: Float32[Tensor, "f p d"],
        count: int,
        tower: TowerState,
    ) -> CompressionResult:
        """Keep exactly `count` tokens, fewer than there are; `unit` has them at unit length, zero ones at zero."""


def select(tokens: Float[Tensor, "f p d"], kept: Int64[Tensor, " k"]) -> CompressionResult:
    """Keep the tokens of the given ascending indices into frame-major order and drop all others."""
    flat = tokens.flatten(0, 1)
    assignment = torch.full((flat.shape[0],), -1, device=tokens.device)
    assignment[kept] = torch.arange(kept.numel(), device=tokens.device)
    return summarize(tokens, flat[kept], assignment, assignment)


def collect(
    tokens: Float[Tensor, "f p d"],
    values: Float[Tensor, "n d"],
    owner: Int64[Tensor, " n"],
    kept: Int64[Tensor, " k"] | None = None,
) -> CompressionResult:
    """Keep the tokens that own themselves.

    Args:
        tokens: the video.
        values: what each of them becomes; only the rows of those that are kept count.
        owner: for each token the one that it is merged into, -1 if it is dropped.
        kept: those that own themselves in the order in which they are to stand; None for ascending.
    """
    everyone = torch.arange(len(owner), device=owner.device)
    if kept is None:
        kept = (owner == everyone).nonzero().flatten()
    number = torch.full_like(owner, -1)
    number[kept] = everyone[: len(kept)]
    component = number[owner].where(owner >= 0, -1)
    return summarize(tokens, values[kept].to(tokens.dtype), component, component)


def top(scores: Float[Tensor, " n"], count: int) -> Int64[Tensor, " k"]:
    """Return the ascending indices of the highest scores; of equal ones the lowest index first."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def top_per_frame(scores: Float[Tensor, "f p"], shares: Sequence[int]) -> Int64[Tensor, " k"]:
    """Return the ascending frame-major indices of the highest scores of each frame, as many as its share."""
    rank = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < rank.new_tensor(shares)[:, None]).flatten().nonzero().flatten()


def distance(
    left: Float32[Tensor, "*batch d"], right: Float32[Tensor, "*batch d"]
) -> Float32[Tensor, "*batch"]:
    """Return 1 - cosine of unit vectors row by row: exactly 0 for equal ones, 1 where one is zero."""
    apart = (left - right).square().sum(-1) / 2
    return apart.masked_fill(~(left.any(-1) & right.any(-1)), 1.0)


def even_shares(total: int, count: int) -> list[int]:
    """Split `total` into `count` integers that differ by at most one, the larger ones spread evenly."""
    bounds = [(2 * i * total + count) // (2 * count) for i in range(count + 1)]
    return [high - low for low, high in pairwise(bounds)]


def even_positions(size: int, count: int) -> list[int]:
    """Return `count` distinct positions spread over 0..size-1, for count <= size."""
    return [(2 * i + 1) * size // (2 * count) for i in range(count)]


def weighted_shares(
    total: int, weights: Sequence[float | int], caps: Sequence[int], at_least: int = 0
) -> list[int]:
    """Split `total` in proportion to weights: largest remainders, nobody above its cap.

    Args:
        total: at most the sum of the caps.
        weights: not negative; all zero for equal ones.
        caps: the largest share of each.
        at_least: what each gets first; nothing if `total` is too small for that.

    Returns:
        Integers that add up to `total`; of equal remainders the lowest index gains.
    """
    shares = [min(at_least, cap) for cap in caps]
    if sum(shares) > total:
        shares = [0] * len(caps)
    exact = [Fraction(weight) for weight in weights]
    hungry, rest = list(range(len(caps))), total - sum(shares)
    while True:
        weight = sum(exact[i] for i in hungry)
        quota = {i: rest * exact[i] / weight if weight else Fraction(rest, len(hungry)) for i in hungry}
        full = [i for i in hungry if quota[i] >= caps[i] - shares[i]]
        if not full:
            break
        for i in full:
            rest -= caps[i] - shares[i]
            shares[i] = caps[i]
            hungry.remove(i)
    for i in hungry:
        shares[i] += int(quota[i])
    rest -= sum(int(quota[i]) for i in hungry)
    for i in sorted(hungry, key=lambda i: int(quota[i]) - quota[i])[:rest]:
        shares[i] += 1
    return shares
