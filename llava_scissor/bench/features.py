"""Made-up visual tokens to measure a compressor on."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llava_scissor.errors import InputError

NUM_REGIONS = 64


def video_like_tokens(
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
    of components rises gradually with the threshold, without a jump from one to all.

    Args:
        num_frames: F.
        tokens_per_frame: P, a square number.
        width: D.
        dtype: of the result.
        device: of the result; the draw itself is the same on every device.
        seed: of the draw.
    """
    draw = torch.Generator().manual_seed(seed)
    region = _regions(num_frames, tokens_per_frame, draw)  # (F, P)
    vectors = torch.randn(NUM_REGIONS, width, generator=draw)
    strength = 10 ** torch.empty(NUM_REGIONS).uniform_(-1.2, 0, generator=draw)
    tokens = torch.empty(num_frames, tokens_per_frame, width, dtype=dtype)
    for frame, mine in zip(tokens, region, strict=True):
        spread = strength[mine] * torch.empty(tokens_per_frame).uniform_(0.5, 1.5, generator=draw)
        noise = torch.randn(tokens_per_frame, width, generator=draw)
        frame.copy_(vectors[mine] + spread[:, None] * noise)
    return tokens.to(device)


def _regions(num_frames: int, tokens_per_frame: int, draw: torch.Generator) -> Int64[Tensor, "f p"]:
    """Give each token the region whose centre is nearest to it."""
    side = math.isqrt(tokens_per_frame)
    if side * side != tokens_per_frame:
        raise InputError(f"tokens per frame must be a square number, got {tokens_per_frame}")
    axis = (torch.arange(side) + 0.5) / side
    places = torch.cartesian_prod(axis, axis)  # (P, 2)
    begin = torch.rand(NUM_REGIONS, 2, generator=draw)
    drift = 0.01 * torch.randn(NUM_REGIONS, 2, generator=draw)  # of the picture's side, each frame
    centers = begin + torch.arange(num_frames)[:, None, None] * drift  # (F, regions, 2)
    return torch.cdist(places, centers % 1).argmin(-1)  # (F, P)
