"""Unit vectors, and the one similarity that everything else is decided by.

The similarity of two tokens is the float64 dot product of their float32 unit vectors, added in one order, rounded
to the nearest multiple of 2^-24 and clamped to [-1, 1]: float32's resolution below 1. It is symmetric and depends
on neither blocks, threads nor the device's matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from llava_scissor.compression.engines.tiled import screening
from llava_scissor.compression.engines.tiled.tuning import tuning_for
from llava_scissor.errors import InputError

GRID = 2.0**24
"""Similarities are multiples of 1 / GRID."""

NEVER = -1.0
"""Similarity of a zero-norm token in a graph: no threshold a config accepts lets it join anything."""

SHORTEST = 2.0**-40
"""Tokens that are no longer than this are scaled before they are divided by their norm."""

LONGEST = 2.0**60
"""So are those that are no shorter than this."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Tokens as unit vectors.

    Attributes:
        tokens: all as one list, as given; in float32 and scaled by powers of two if squares would leave its range.
        norm: their lengths, 1 for zero-norm tokens.
        coarse: unit vectors in the format in which products are fastest.
        coarse_error: the largest distance of a vector of `coarse` from its float32 unit vector.
        is_zero: which tokens have zero norm.
        has_zero: whether any has.
        shift: the sum of all tokens stays below float32's limit if they are multiplied by 2^-shift.
    """

    tokens: Float[Tensor, "n d"]
    norm: Float32[Tensor, "*batch"]
    coarse: Float[Tensor, "*batch d"]
    coarse_error: float
    is_zero: Bool[Tensor, "*batch"]
    has_zero: bool = False
    shift: int = 0

    @cached_property
    def unit(self) -> Float32[Tensor, "*batch d"]:
        """float32 unit vectors, zero rows for zero-norm tokens; formed when first asked for."""
        if self.coarse.dtype == torch.float32:
            return self.coarse
        return (self.tokens.float() / self.norm.flatten()[:, None]).view(self.coarse.shape)

    def units_at(self, index: Int64[Tensor, " n"]) -> Float32[Tensor, "n d"]:
        """Return the float32 unit vectors of some tokens, numbered across the batch."""
        if self.coarse.dtype == torch.float32 or "unit" in vars(self):
            return self.unit.flatten(0, -2).index_select(0, index)
        return self.tokens[index].float().div_(self.norm.flatten()[index, None])  # rows of their own

    @property
    def formats(self) -> Iterator[tuple[Tensor, float]]:
        """The vectors in the formats in which they are multiplied, the fastest first, and their errors."""
        if self.coarse.dtype != torch.float32:
            yield self.coarse, self.coarse_error
        yield self.unit, screening.matrix_error(torch.float32)

    def flatten(self) -> Directions:
        """All tokens as one list."""
        flat = {name: getattr(self, name).flatten() for name in ("norm", "is_zero")}
        return replace(self, coarse=self.coarse.flatten(0, -2), **flat)


def directions(tokens: Float[Tensor, "*batch d"]) -> Directions:
    """Scale tokens to unit length in float32.

    Tokens whose squares would overflow or vanish are first scaled by a power of two, which rounds nothing.

    Args:
        tokens: any floating dtype; not modified.

    Returns:
        Unit vectors on the tokens' device.

    Raises:
        InputError: a token holds NaN, infinity, or a value beyond float32; names the first one.
    """
    found = _divided(tokens)
    is_plain = (found.norm > SHORTEST) & (found.norm < LONGEST)
    if bool(is_plain.all()):
        return found
    values = tokens.float()
    largest = values.abs().amax(dim=-1)
    _check_finite(largest)
    _, exponent = torch.frexp(largest)
    scaled = (values.double() * torch.exp2(-exponent.double())[..., None]).float()
    found = _divided(values.where(is_plain[..., None], scaled))
    is_zero = found.norm == 0
    norm = found.norm.masked_fill(is_zero, 1)
    shift = max(0, int(exponent.max()) + is_zero.numel().bit_length() - 127)
    return replace(found, norm=norm, is_zero=is_zero, has_zero=bool(is_zero.any()), shift=shift)


def _divided(tokens: Float[Tensor, "*batch d"]) -> Directions:
    """Divide tokens by their norms, some at a time; right for those between `SHORTEST` and `LONGEST`."""
    flat = tokens.flatten(0, -2)
    coarse = torch.empty_like(flat, dtype=screening.fast_dtype(flat.device))
    norm = torch.empty_like(flat[:, 0], dtype=torch.float32)
    error = norm.new_zeros(())
    rows_each = max(1, (tuning_for(flat.device).coordinates_each or flat.numel()) // flat.shape[1])
    for part, length, rounded in zip(
        *(values.split(rows_each) for values in (flat, norm, coarse)), strict=True
    ):
        unit = part.to(torch.float32, copy=True)
        torch.linalg.vector_norm(unit, dim=-1, out=length)
        rounded.copy_(unit.div_(length[:, None].clamp(min=SHORTEST)))
        if coarse.dtype != torch.float32:
            error = torch.maximum(error, screening.rounding_error(unit, rounded, out=unit))
    batch = tokens.shape[:-1]
    is_zero = torch.zeros(batch, dtype=torch.bool, device=tokens.device)
    return Directions(flat, norm.view(batch), coarse.view(tokens.shape), float(error), is_zero)


def _check_finite(largest: Tensor) -> None:
    if bool(largest.isfinite().all()):
        return
    place = (~largest.isfinite()).nonzero()[0].tolist()
    name = "frame {}, token {}".format(*place) if len(place) == 2 else f"token {place[0]}"
    raise InputError(
        f"visual tokens must be finite in float32, got NaN or infinity at {name}; "
        f"check the vision tower's output, and load float16 checkpoints in bfloat16 if they overflow"
    )


def similarity_of_pairs(
    left: Directions,
    u: Int64[Tensor, " e"],
    right: Directions,
    v: Int64[Tensor, " e"],
    is_rough: bool = False,
) -> tuple[Float32[Tensor, " e"], float]:
    """Return the similarity of some pairs of tokens, one of each list, and its largest error.

    Args:
        left: the one list.
        u: a token of it for each pair.
        right: the other list.
        v: a token of it for each pair.
        is_rough: whether to add in float32, which is faster; else the error is 0.
    """
    width = left.coarse.shape[-1]
    pairs_each = max(1, tuning_for(u.device).products_each // width)  # they stay in a cache
    parts = zip(u.split(pairs_each), v.split(pairs_each), strict=True)
    units = ((left.units_at(one), right.units_at(other)) for one, other in parts)
    if is_rough:
        rough = torch.cat([(one * other).sum(-1) for one, other in units])
        return rough, screening.product_error(torch.float32, width)
    return torch.cat([similarity_of_rows(one, other) for one, other in units]), 0.0


def similarity_of_rows(left: Float32[Tensor, "n d"], right: Float32[Tensor, "n d"]) -> Float32[Tensor, " n"]:
    """Return the similarity of each unit vector with the one at the same index of another list."""
    return _round((left.double() * right).sum(-1))


def similarity_of_all(
    left: Float32[Tensor, "g r d"], right: Float32[Tensor, "g c d"]
) -> Float32[Tensor, "g r c"]:
    """Return the similarity of all pairs of some sets of unit vectors.

    The float64 product differs from the defined sum by its order of addition. Where the difference could decide
    the rounding, the defined sum is formed.
    """
    dot = torch.bmm(left.double(), right.double().mT)
    steps = dot * GRID
    error = GRID * left.shape[2] * 2.0**-51
    is_open = (steps - steps.floor() - 0.5).abs() <= error
    values = _round(dot)
    if bool(is_open.any()):
        g, r, c = is_open.nonzero(as_tuple=True)
        values[g, r, c] = similarity_of_rows(left[g, r], right[g, c])
    return values


def _round(dot: Tensor) -> Float32[Tensor, "*shape"]:
    return dot.mul(GRID).round_().div_(GRID).clamp_(-1, 1).float()


def draw_sample(
    num_sets: int, size: int, sample_size: int | None, seed: int, device: torch.device
) -> Int64[Tensor, "b s"] | None:
    """Draw the same number of distinct tokens from every set.

    Args:
        num_sets: number of sets.
        size: tokens in each.
        sample_size: tokens to draw from each; None for all.
        seed: of a private CPU generator, so that every device draws the same tokens.
        device: where the result goes.

    Returns:
        Ascending indices (num_sets, sample_size), or None where that would be all tokens.
    """
    if sample_size is None or sample_size >= size:
        return None
    keys = torch.rand(num_sets, size, generator=torch.Generator().manual_seed(seed))
    return keys.argsort(dim=1)[:, :sample_size].sort(dim=1).values.to(device)
