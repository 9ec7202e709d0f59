"""Files of visual tokens that a checkpoint made of a video."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llava_scissor.errors import InputError

KEY = "tokens"


@dataclass(frozen=True, eq=False)
class Recording:
    """The visual tokens of one video, as a compressor gets them.

    Attributes:
        name: of the file.
        tokens: in the stored number format (F, P, D).
    """

    name: str
    tokens: Float[Tensor, "f p d"]

    def check(self, num_frames: int) -> None:
        """Raise InputError if there are not so many frames."""
        if num_frames > len(self.tokens):
            raise InputError(f"--frames {num_frames}: {self.name} has {len(self.tokens)} frames")

    def take(self, num_frames: int) -> Float[Tensor, "n p d"]:
        """Return some frames, spread evenly from the first to the last one.

        Raises:
            InputError: there are not so many.
        """
        self.check(num_frames)
        return self.tokens[torch.linspace(0, len(self.tokens) - 1, num_frames).round().long()]


def check_target(path: Path) -> None:
    """Refuse a path at which no file can be written, before minutes go into its content.

    Raises:
        InputError: its folder is not there, or it is a folder itself.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected the name of a file to write")


def write_recording(path: Path, tokens: Float[Tensor, "f p d"], metadata: Mapping[str, str]) -> Recording:
    """Write visual tokens in 16 bits: bfloat16 if they are, or if they do not fit into float16; else float16.

    Args:
        path: of the file, which is replaced.
        tokens: any floating number format and device.
        metadata: texts that say where they are from.

    Returns:
        What was written.

    Raises:
        InputError: the tokens contain NaN or infinity, or the file cannot be written.
    """
    if not bool(tokens.isfinite().all()):
        raise InputError("the visual tokens contain NaN or infinity: try another number format of the model")
    half = tokens.cpu() if tokens.dtype == torch.bfloat16 else tokens.cpu().half()
    if not bool(half.isfinite().all()):
        half = tokens.cpu().bfloat16()
    try:
        save_file({KEY: half.contiguous()}, path, dict(metadata))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be written: {error}") from error
    return Recording(path.name, half)


def read_recording(path: Path) -> Recording:
    """Read a safetensors file that holds visual tokens under the name `tokens`.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys())
            tokens = file.get_tensor(KEY) if KEY in names else None
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}") from error
    if tokens is None:
        raise InputError(f"{path} has no tensor '{KEY}', only {', '.join(names) or 'no tensor at all'}")
    if tokens.ndim != 3 or not tokens.is_floating_point() or not tokens.numel():
        raise InputError(
            f"{path}: expected '{KEY}' of floating numbers and shape (frames, tokens per frame, width), "
            f"got shape {tuple(tokens.shape)} of {tokens.dtype}"
        )
    if not math.isfinite(tokens.double().abs().sum()):
        raise InputError(f"{path}: '{KEY}' contains NaN or infinity")
    return Recording(path.name, tokens)
