"""Splitting an exact budget, and spreading it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise


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
    while rest := total - sum(shares):
        hungry = [i for i, cap in enumerate(caps) if shares[i] < cap]
        weight = sum(Fraction(weights[i]) for i in hungry)
        quota = {
            i: rest * Fraction(weights[i]) / weight if weight else Fraction(rest, len(hungry)) for i in hungry
        }
        full = [i for i in hungry if quota[i] >= caps[i] - shares[i]]
        for i in full:
            shares[i] = caps[i]
        if not full:
            num_more = rest - sum(map(int, quota.values()))
            gaining = sorted(hungry, key=lambda i: int(quota[i]) - quota[i])[:num_more]
            for i in hungry:
                shares[i] += int(quota[i]) + (i in gaining)
    return shares
