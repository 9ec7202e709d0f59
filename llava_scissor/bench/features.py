"""Visual tokens to measure a compressor on, drawn from a seed: three kinds of made-up videos.

The first frames of a long draw are those of a short one with the same seed: more frames are a longer video, which
changes as fast from frame to frame. No frame is special. All is drawn on the CPU, the same for every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn import functional

from llava_scissor.errors import InputError

Generator = Callable[[int, int, int, torch.dtype, torch.device, int], Tensor]
"""From frames F, tokens per frame P (a square number), width D, number format, device and seed to (F, P, D)."""

NUM_REGIONS = 64

RANK = 24
"""Fields that all channels of `smooth_fields` are made of."""

HIDDEN_WIDTH = 256
"""Of the network behind the fields."""

SCALES = ((1.0, 10.7), (1 / 3, 5.3), (1 / 6, 2.7))
"""How far apart the values between which a field is interpolated are: in sides of the picture, and in frames."""

NOISE = 0.15
"""White noise of `smooth_fields`, of the root mean square of its tokens."""


def moving_regions(
    num_frames: int,
    tokens_per_frame: int,
    width: int,
    dtype: torch.dtype,
    device: torch.device,
    seed: int = 0,
) -> Float[Tensor, "f p d"]:
    """Draw tokens of moving regions, some of one piece and some full of detail.

    Every frame is divided among regions that drift slowly. A token is its region's vector plus noise; the
    noise of a region lies anywhere between almost none and as strong as the vector itself, so that the number
    of components rises gradually with the threshold, without a jump from one to all. Different regions are
    hardly similar at all, and there are no chains: two tokens of a component are about as similar as any two.

    Args:
        num_frames: F.
        tokens_per_frame: P, a square number.
        width: D.
        dtype: of the result.
        device: of the result.
        seed: of the draw.

    Raises:
        InputError: P is no square number.
    """
    draw = torch.Generator().manual_seed(seed)
    region = _regions(num_frames, tokens_per_frame, draw)  # (F, P)
    vectors = torch.randn(NUM_REGIONS, width, generator=draw)
    strength = 10 ** torch.empty(NUM_REGIONS).uniform_(-1.2, 0, generator=draw)
    tokens = torch.empty(num_frames, tokens_per_frame, width, dtype=dtype)
    for frame, mine in zip(tokens, region, strict=True):
        frame.copy_(vectors[mine] + _uneven_noise(strength[mine], width, draw))
    return tokens.to(device)


def smooth_fields(
    num_frames: int,
    tokens_per_frame: int,
    width: int,
    dtype: torch.dtype,
    device: torch.device,
    seed: int = 0,
) -> Float[Tensor, "f p d"]:
    """Draw tokens that change smoothly over the picture and over time, with some white noise.

    Fields of three scales, each trilinear between random values, go through a random network of two layers with
    a ReLU between them. All tokens share a direction, neighbours are very similar, and similarity falls off
    slowly: components are long and have no clear border.

    Args:
        num_frames: F.
        tokens_per_frame: P, a square number.
        width: D.
        dtype: of the result.
        device: of the result.
        seed: of the draw.

    Raises:
        InputError: P is no square number.
    """
    side = _side(tokens_per_frame)
    draw = torch.Generator().manual_seed(seed)
    widen = torch.randn(RANK, HIDDEN_WIDTH, generator=draw) / math.sqrt(RANK)
    bias = 0.1 * torch.randn(HIDDEN_WIDTH, generator=draw)
    narrow = torch.randn(HIDDEN_WIDTH, width, generator=draw) / math.sqrt(HIDDEN_WIDTH)
    fields = torch.zeros(num_frames, tokens_per_frame, RANK)
    for number, (picture_sides, frames) in enumerate(SCALES, 1):
        fields += _field(num_frames, side, picture_sides, frames, _own_generator(draw)) / number
    mean_square = 0.5 * (sum(1 / number**2 for number in range(1, len(SCALES) + 1)) + 0.1**2)
    tokens = torch.empty(num_frames, tokens_per_frame, width, dtype=dtype)
    for frame, mine in zip(tokens, fields, strict=True):
        noise = torch.randn(tokens_per_frame, width, generator=draw)
        frame.copy_(torch.relu(mine @ widen + bias) @ narrow + NOISE * math.sqrt(mean_square) * noise)
    return tokens.to(device)


def rotating_chains(
    num_frames: int,
    tokens_per_frame: int,
    width: int,
    dtype: torch.dtype,
    device: torch.device,
    seed: int = 0,
) -> Float[Tensor, "f p d"]:
    """Draw tokens of which neighbours are similar and those further apart are not.

    A frame is cut into runs of tokens, row by row. Along a run, and from frame to frame, a token turns slowly from
    one random vector to another one. So a component is a chain whose ends have nothing in common. Each run has
    noise of its own strength, and within a run some tokens have more of it: they fall out of the chain alone.

    Args:
        num_frames: F.
        tokens_per_frame: P, a square number.
        width: D.
        dtype: of the result.
        device: of the result.
        seed: of the draw.

    Raises:
        InputError: P is no square number.
    """
    _side(tokens_per_frame)
    draw = torch.Generator().manual_seed(seed)
    num_runs = max(2, tokens_per_frame // 8)
    borders = torch.randperm(tokens_per_frame - 1, generator=draw)[: num_runs - 1] + 1
    starts = torch.zeros(tokens_per_frame, dtype=torch.long).index_fill_(0, borders, 1)
    run = starts.cumsum(0)  # (P,)
    one, other = torch.randn(2, num_runs, width, generator=draw)
    along = torch.linspace(0, num_runs * 1.5, tokens_per_frame)  # radians: 1.5 for a run of mean length
    speed = 0.1 * torch.rand(num_runs, generator=draw)  # radians for each frame
    strength = 10 ** torch.empty(num_runs).uniform_(-1.3, -0.3, generator=draw)
    tokens = torch.empty(num_frames, tokens_per_frame, width, dtype=dtype)
    for number, frame in enumerate(tokens):
        angle = (along + number * speed[run])[:, None]
        turned = angle.cos() * one[run] + angle.sin() * other[run]
        frame.copy_(turned + _uneven_noise(strength[run], width, draw))
    return tokens.to(device)


GENERATORS: dict[str, Generator] = {
    "made-up": moving_regions,
    "smooth": smooth_fields,
    "chains": rotating_chains,
}
"""By the name that `--features` takes."""


def similarity_profile(tokens: Float[Tensor, "f p d"]) -> dict[str, list[float] | None]:
    """Return how similar tokens are: the 5 %, 50 % and 95 % quantiles of cosine similarity.

    Returns:
        `inside_frame`: of all pairs of different tokens of a frame, None with one token in each; `next_frame`: of
        tokens with those at the same place one frame later, None for one frame.
    """
    unit = functional.normalize(tokens.float().cpu(), dim=-1)
    row, column = torch.triu_indices(*(2 * tokens.shape[1:2]), offset=1)
    return {
        "inside_frame": _quantiles((unit @ unit.mT)[:, row, column]),
        "next_frame": _quantiles((unit[1:] * unit[:-1]).sum(-1)),
    }


def _quantiles(values: Float32[Tensor, "f _n"]) -> list[float] | None:
    if not values.numel():
        return None
    ordered = values.flatten().sort().values
    return [round(float(ordered[int(share * (len(ordered) - 1))]), 4) for share in (0.05, 0.5, 0.95)]


def _side(tokens_per_frame: int) -> int:
    side = math.isqrt(tokens_per_frame)
    if side * side != tokens_per_frame:
        raise InputError(f"tokens per frame must be a square number, got {tokens_per_frame}")
    return side


def _regions(num_frames: int, tokens_per_frame: int, draw: torch.Generator) -> Int64[Tensor, "f p"]:
    """Give each token the region whose centre is nearest to it."""
    side = _side(tokens_per_frame)
    axis = (torch.arange(side) + 0.5) / side
    places = torch.cartesian_prod(axis, axis)  # (P, 2)
    begin = torch.rand(NUM_REGIONS, 2, generator=draw)
    drift = 0.01 * torch.randn(NUM_REGIONS, 2, generator=draw)  # of the picture's side, each frame
    centers = begin + torch.arange(num_frames)[:, None, None] * drift  # (F, regions, 2)
    return torch.cdist(places, centers % 1).argmin(-1)  # (F, P)


def _uneven_noise(
    strength: Float32[Tensor, " p"], width: int, draw: torch.Generator
) -> Float32[Tensor, "p d"]:
    """Draw noise of these strengths, each changed by up to a half."""
    spread = strength * torch.empty(len(strength)).uniform_(0.5, 1.5, generator=draw)
    return spread[:, None] * torch.randn(len(strength), width, generator=draw)


def _field(
    num_frames: int, side: int, picture_sides: float, frames: float, draw: torch.Generator
) -> Float32[Tensor, "f p c"]:
    """Draw fields of variance 1, trilinear between values that are so far apart.

    Where the values stand is drawn for each field, else all of them would turn in the same frames.
    """
    offsets = torch.rand(3, RANK, generator=draw)
    places = (torch.arange(side) + 0.5) / side
    rows, columns = (_weights(places / picture_sides, offset) for offset in offsets[:2])
    times = _weights(torch.arange(num_frames) / frames, offsets[2])  # (C, F, knots)
    shape = RANK, rows.shape[2], columns.shape[2]
    # One call for each knot: the first ones of a long video are then those of a short one.
    knots = torch.stack([torch.randn(shape, generator=draw) for _ in range(times.shape[2])])
    planes = torch.einsum("tcij,cyi,cxj->tcyx", knots, rows, columns)
    return torch.einsum("cft,tcyx->fyxc", times, planes).flatten(1, 2)


def _weights(places: Float32[Tensor, " n"], offsets: Float32[Tensor, " c"]) -> Float32[Tensor, "c n k"]:
    """Return the weights of linear interpolation between knots at 0, 1, 2 .., with squares that add up to 1.

    Plain weights of 1/2 and 1/2 would halve the variance between two knots.
    """
    shifted = places + offsets[:, None]  # (C, N)
    knots = torch.arange(int(places[-1]) + 3)
    return functional.normalize(torch.relu(1 - (shifted[..., None] - knots).abs()), dim=-1)


def _own_generator(draw: torch.Generator) -> torch.Generator:
    """Return a generator of numbers of its own, of which any number may be drawn without a change elsewhere."""
    return torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=draw)))
