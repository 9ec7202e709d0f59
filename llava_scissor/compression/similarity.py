"""Unit vectors, and the one similarity that everything else is decided by.

The similarity of two tokens is the float64 dot product of their float32 unit vectors, added in one order, rounded
to the nearest multiple of 2^-24 and clamped to [-1, 1]: float32's resolution below 1. It is symmetric and depends
on neither blocks, threads nor the device's matrix product.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from llava_scissor.compression import precision
from llava_scissor.compression.indexing import PatchedRows
from llava_scissor.errors import InputError

GRID = 2.0**24
"""Similarities are multiples of 1 / GRID."""

NEVER = -1.0
"""Similarity of a zero-norm token in a graph: no threshold a config accepts lets it join anything."""

PRODUCTS_EACH = 2**18
"""Products of coordinates formed at a time where single pairs are looked at; they stay in a core's cache."""

COORDINATES_EACH = 2**19
"""Coordinates converted at a time on a CPU; they stay in the cache."""

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

    tokens: Float[Tensor, "n d"] | PatchedRows
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
        yield self.unit, precision.matrix_error(torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the tokens are."""
        return self.coarse.device

    def flatten(self) -> Directions:
        """All tokens as one list."""
        flat = {name: getattr(self, name).flatten() for name in ("norm", "is_zero")}
        return replace(self, coarse=self.coarse.flatten(0, -2), **flat)

    def __getitem__(self, part: slice) -> Directions:
        """Some sets of a batch of them (b, n), with rows next to each other in memory."""
        names = ("norm", "coarse", "is_zero")
        tokens = self.tokens[:].view(self.coarse.shape)[part].flatten(0, 1)
        return replace(
            self, tokens=tokens, **{name: getattr(self, name)[part].contiguous() for name in names}
        )

    def updated(self, number: Int64[Tensor, " m"], is_new: Bool[Tensor, " m"], new: Directions) -> Directions:
        """Return one set (1, m) of vectors some of which are of this set and others new; neither is scaled.

        Args:
            number: the vector here that each of the result is, where that is not new.
            is_new: which of the result are new.
            new: those, in order.
        """
        parts = {}
        for name in ("norm", "coarse", "is_zero"):
            parts[name] = getattr(self, name).index_select(1, number)
            parts[name][:, is_new] = getattr(new, name)
        tokens = PatchedRows(self.tokens[:], number, is_new, new.tokens[:])
        return replace(self, tokens=tokens, **parts, coarse_error=max(self.coarse_error, new.coarse_error))


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
    coarse = torch.empty_like(flat, dtype=precision.fast_dtype(flat.device))
    norm = torch.empty_like(flat[:, 0], dtype=torch.float32)
    error = norm.new_zeros(())
    measures_error = coarse.dtype != torch.float32 and precision.on_cpu(flat.device)
    scratch = norm.new_empty(_rows_each(flat), flat.shape[1])
    for rows in _blocks(flat):
        unit = scratch[: len(norm[rows])].copy_(flat[rows])
        torch.linalg.vector_norm(unit, dim=-1, out=norm[rows])
        coarse[rows] = unit.div_(norm[rows, None].clamp(min=SHORTEST))
        if measures_error:
            error = torch.maximum(error, precision.rounding_error(unit, coarse[rows], out=unit))
    largest = (
        float(error) if measures_error else precision.largest_rounding_error(coarse.dtype, flat.shape[1])
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
    most = max(1, len(tokens))
    return min(most, max(1, COORDINATES_EACH // tokens.shape[1])) if precision.on_cpu(tokens.device) else most


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
    left: Float32[Tensor, "n d"],
    u: Int64[Tensor, " e"],
    right: Float32[Tensor, "m d"],
    v: Int64[Tensor, " e"],
) -> Float32[Tensor, " e"]:
    """Return the similarity of each pair (left[u], right[v]) of unit vectors."""
    pairs_each = max(1, PRODUCTS_EACH // left.shape[1]) if precision.on_cpu(left.device) else 2**14
    values = torch.empty(u.numel(), device=left.device)
    for first in range(0, u.numel(), pairs_each):
        pairs = slice(first, first + pairs_each)
        values[pairs] = similarity_of_rows(left.index_select(0, u[pairs]), right.index_select(0, v[pairs]))
    return values


def similarity_of_rows(left: Float32[Tensor, "n d"], right: Float32[Tensor, "n d"]) -> Float32[Tensor, " n"]:
    """Return the similarity of each unit vector with the one at its place in another list."""
    return _round((left.double() * right).sum(-1))


def rough_similarity_of_pairs(
    left: Float32[Tensor, "n d"],
    u: Int64[Tensor, " e"],
    right: Float32[Tensor, "m d"],
    v: Int64[Tensor, " e"],
) -> tuple[Float32[Tensor, " e"], float]:
    """Return the similarity of each pair (left[u], right[v]) up to an error, and that error; u is ascending.

    On a CPU the pairs are the places of a sparse matrix whose entries are dot products in float32.
    """
    if not precision.on_cpu(left.device):
        return similarity_of_pairs(left, u, right, v), 0.0
    _allow_compressed_rows()
    start = torch.zeros(len(left) + 1, dtype=torch.int64)
    start[1:] = torch.bincount(u, minlength=len(left)).cumsum(0)
    places = torch.sparse_csr_tensor(start, v, torch.zeros(u.numel()), size=(len(left), len(right)))
    dots = torch.sparse.sampled_addmm(places, left, right.mT, beta=0.0).values()
    return dots, precision.product_error(torch.float32, left.shape[1])


@cache
def _allow_compressed_rows() -> None:
    """Make the first compressed sparse matrix, at which torch warns that they are young."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.sparse_csr_tensor(
            torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64), torch.zeros(0), size=(1, 1)
        )


def exceeds(
    left: Float32[Tensor, "n d"],
    u: Int64[Tensor, " e"],
    right: Float32[Tensor, "m d"],
    v: Int64[Tensor, " e"],
    tau: float,
) -> Bool[Tensor, " e"]:
    """Tell which of some pairs (left[u], right[v]) have a similarity above `tau`; u is ascending."""
    rough, error = rough_similarity_of_pairs(left, u, right, v)
    is_above = rough.double() > tau
    is_open = ((rough.double() - tau).abs() <= error).nonzero()[:, 0]
    if error and is_open.numel():
        is_above[is_open] = similarity_of_pairs(left, u[is_open], right, v[is_open]).double() > tau
    return is_above


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
        values[g, r, c] = similarity_of_pairs(
            left.flatten(0, 1), g * left.shape[1] + r, right.flatten(0, 1), g * right.shape[1] + c
        )
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
