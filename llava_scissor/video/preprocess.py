"""Frames to the vision tower's input, as the SigLIP processor of the original checkpoints does it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from llava_scissor.errors import InputError

_RESIZERS = ("torch", "pil")
_BICUBIC = Image.Resampling.BICUBIC


def preprocess_frames(
    frames: UInt8[Tensor, "f h w 3"],
    image_size: int,
    mean: Sequence[float] = (0.5, 0.5, 0.5),
    std: Sequence[float] = (0.5, 0.5, 0.5),
    resize: str = "pil",
) -> Float[Tensor, "f 3 s s"]:
    """Squash frames to a square and normalise them.

    Args:
        frames: RGB pictures (F, H, W, 3), uint8, on the CPU.
        image_size: Side S of the square in pixels; the aspect ratio is not kept.
        mean: Mean of each channel, on the scale 0..1.
        std: Standard deviation of each channel, on the same scale.
        resize: `pil` is Pillow itself, on several threads; `torch` is within one grey level of it (two for about
            one value in a million, in noise and where small frames are enlarged).

    Returns:
        Normalised frames (F, 3, S, S), float32, on the CPU; with the default mean and std in -1..1.

    Raises:
        InputError: The frames, the size, the statistics or the name of the resizer cannot be used.

    Reference:
        `SigLipImageProcessor` of the original code: PIL bicubic on uint8, x / 255, (x - mean) / std. Floats
        are never resized: without the rounding between the two passes they are up to 12 grey levels off.
    """
    _check(frames, image_size, mean, std)
    if resize not in _RESIZERS:
        raise InputError(f"There is no resize {resize!r}. Choose one of: {', '.join(_RESIZERS)}.")
    squares = (_resize_pil if resize == "pil" else _resize_torch)(frames, image_size)
    mean_c11, std_c11 = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (mean, std))
    return (squares.contiguous().float() / 255 - mean_c11) / std_c11


def _check(frames: Tensor, image_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
    if frames.dtype != torch.uint8 or frames.device.type != "cpu":
        raise InputError(f"Frames are {frames.dtype} on {frames.device}, but must be torch.uint8 on the CPU.")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.numel() == 0:
        raise InputError(f"Frames have the shape {tuple(frames.shape)}, but must be (F, H, W, 3), not empty.")
    if image_size < 1:
        raise InputError(f"image_size is {image_size}, but must be at least 1 pixel.")
    if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
        raise InputError(f"mean {mean} and std {std} must have 3 values each, those of std positive.")


def _resize_pil(frames: UInt8[Tensor, "f h w 3"], image_size: int) -> UInt8[Tensor, "f 3 s s"]:
    def squash(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
        return np.asarray(Image.fromarray(frame).resize((image_size, image_size), _BICUBIC))

    with ThreadPoolExecutor() as pool:
        squares = np.stack(list(pool.map(squash, frames.numpy())))
    return rearrange(torch.from_numpy(squares), "f h w c -> f c h w")


def _resize_torch(frames: UInt8[Tensor, "f h w 3"], image_size: int) -> UInt8[Tensor, "f 3 s s"]:
    height, width = frames.shape[1:3]
    pictures = rearrange(frames, "f h w c -> f c h w")
    if _pillow_starts_vertically(height, width, image_size):
        pictures = F.interpolate(pictures, (image_size, width), mode="bicubic", antialias=True)
    return F.interpolate(pictures, (image_size, image_size), mode="bicubic", antialias=True)


@lru_cache(maxsize=64)
def _pillow_starts_vertically(height: int, width: int, image_size: int) -> bool:
    """Ask the installed Pillow in which order it does the two passes.

    Torch, and Pillow before version 13, always start horizontally. Pillow 13 chooses by the sizes; for a portrait
    video the order makes up to 7 grey levels of difference.
    """
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width), np.uint8))
    horizontally_first = noise.resize((image_size, height), _BICUBIC).resize(
        (image_size, image_size), _BICUBIC
    )
    return noise.resize((image_size, image_size), _BICUBIC) != horizontally_first
