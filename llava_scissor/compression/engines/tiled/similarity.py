"""Unit vectors, and the one similarity that everything else is decided by.

The similarity of two tokens is the float64 dot product of their float32 unit vectors, added in one order, rounded
to the nearest multiple of 2^-24 and clamped to [-1, 1]: float32's resolution below 1. It is symmetric and depends
on neither blocks, threads nor the device's matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


@dataclass(frozen=True, eq=False)
class Directions:
    """Tokens as unit vectors.

    Attributes:
        tokens: all in a list, as given, or in float32 and scaled by powers of two where their squares would leave
            its range.
        norm: their lengths, 1 for zero-norm tokens.
        coarse: unit vectors in the format in which products are fastest.
        coarse_error: the largest distance of a vector of `coarse` from its float32 unit vector.
        is_zero: which tokens have zero norm.
        has_zero: whether any has.
        shift: the sum of all tokens stays below float32's limit if they are multiplied by 2^-shift.
        is_scaled: whether `tokens` are other ones than were given.
    """

    tokens: Float[Tensor, "n d"]
    norm: Float32[Tensor, "*batch"]
    coarse: Float[Tensor, "*batch d"]
    coarse_error: float
    is_zero: Bool[Tensor, "*batch"]
    has_zero: bool = False
    shift: int = 0
    is_scaled: bool = False

    @cached_property
    def unit(self) -> Float32[Tensor, "*batch d"]:
        """float32 unit vectors, zero rows for zero-norm tokens; formed when first asked for."""
        if self.coarse.dtype == torch.float32:
            return self.coarse
        unit = torch.empty_like(self.coarse, dtype=torch.float32)
        flat = unit.view(-1, unit.shape[-1])
        for rows in _blocks(flat):
            torch.div(self.tokens[rows].float(), self.norm.flatten()[rows, None], out=flat[rows])
        return unit

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

    @property
    def device(self) -> torch.device:
        """Where the tokens are."""
        return self.coarse.device

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
    found, is_plain = normalised(tokens)
    if bool(is_plain.all()):
        return found
    values = tokens.float()
    largest = values.abs().amax(dim=-1)
    _check_finite(largest)
    _, exponent = torch.frexp(largest)
    scaled = (values.double() * torch.exp2(-exponent.double())[..., None]).float()
    found, _ = normalised(values.where(is_plain[..., None], scaled))
    norm, is_zero = found.norm, found.norm == 0
    shift = max(0, int(exponent.max()) + is_zero.numel().bit_length() - 127)
    facts = {"has_zero": bool(is_zero.any()), "shift": shift, "is_scaled": True}
    return replace(found, norm=norm.masked_fill_(is_zero, 1), is_zero=is_zero, **facts)


def normalised(tokens: Float[Tensor, "*batch d"]) -> tuple[Directions, Bool[Tensor, "*batch"]]:
    """Divide tokens by their norms, where that is not 0, in one pass over the tokens; a GPU does not wait.

    Returns:
        The directions, and of which tokens they are right: those whose squares neither overflow nor vanish.
    """
    flat = tokens.flatten(0, -2)
    coarse = torch.empty_like(flat, dtype=screening.fast_dtype(flat.device))
    norm = torch.empty_like(flat[:, 0], dtype=torch.float32)
    error = norm.new_zeros(())
    measures_error = coarse.dtype != torch.float32 and flat.device.type == "cpu"
    scratch = norm.new_empty(_rows_each(flat), flat.shape[1])
    for rows in _blocks(flat):
        unit = scratch[: len(norm[rows])].copy_(flat[rows])
        torch.linalg.vector_norm(unit, dim=-1, out=norm[rows])
        coarse[rows] = unit.div_(norm[rows, None].clamp(min=SHORTEST))
        if measures_error:
            error = torch.maximum(error, screening.rounding_error(unit, coarse[rows], out=unit))
    largest = (
        float(error) if measures_error else screening.largest_rounding_error(coarse.dtype, flat.shape[1])
    )
    norm = norm.view(tokens.shape[:-1])
    is_plain, is_zero = (norm > SHORTEST) & (norm < 2.0**60), torch.zeros_like(norm, dtype=torch.bool)
    return Directions(flat, norm, coarse.view(tokens.shape), largest, is_zero), is_plain


def _blocks(tokens: Float[Tensor, "n d"]) -> Iterator[slice]:
    """Yield parts of a list of tokens that are converted at a time."""
    rows_each = _rows_each(tokens)
    return (slice(first, first + rows_each) for first in range(0, len(tokens), rows_each))


def _rows_each(tokens: Float[Tensor, "n d"]) -> int:
    """Return how many tokens are converted at a time."""
    coordinates = tuning_for(tokens.device).coordinates_each or tokens.numel()
    return max(1, min(len(tokens), coordinates // tokens.shape[1]))


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
    left: Directions, u: Int64[Tensor, " e"], right: Directions, v: Int64[Tensor, " e"]
) -> tuple[Float32[Tensor, " e"], float]:
    """Return the similarity of some pairs of tokens, one of each list, and its error: 0."""
    return _pair_by_pair(similarity_of_rows, left, u, right, v), 0.0


def rough_similarity_of_pairs(
    left: Directions, u: Int64[Tensor, " e"], right: Directions, v: Int64[Tensor, " e"]
) -> tuple[Float32[Tensor, " e"], float]:
    """Return the same in float32, which is faster, and the largest error."""
    values = _pair_by_pair(lambda one, other: (one * other).sum(-1), left, u, right, v)
    return values, screening.product_error(torch.float32, left.coarse.shape[-1])


def _pair_by_pair(
    function: Callable[[Tensor, Tensor], Tensor], left: Directions, u: Tensor, right: Directions, v: Tensor
) -> Float32[Tensor, " e"]:
    """Apply a function of two lists of unit vectors to some pairs, so many at a time that they stay in a cache."""
    pairs_each = max(1, tuning_for(u.device).products_each // left.coarse.shape[-1])
    parts = [
        function(left.units_at(i), right.units_at(k))
        for i, k in zip(u.split(pairs_each), v.split(pairs_each), strict=True)
    ]
    return torch.cat(parts)


def similarity_of_rows(left: Float32[Tensor, "n d"], right: Float32[Tensor, "n d"]) -> Float32[Tensor, " n"]:
    """Return the similarity of each unit vector with the one at its place in another list."""
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
