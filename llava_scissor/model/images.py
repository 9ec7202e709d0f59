"""The images of a prompt, and how an image file becomes pixels."""

from __future__ import annotations

import io
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from llava_scissor.errors import ImageError, InputError

ImageSource = str | Path | bytes | Image.Image

# Pillow reads more formats. Some of them start other programs; others come from no camera and no screen.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow raises for broken files
_BITS_16 = ("I;16", "I;16L", "I;16B", "I;16N")


class Images:
    """The images that a question is about, in the order in which the prompt shows them.

    One image is cut into tiles by its size (anyres); several images have one view each.

    Attributes:
        sources: paths, contents of image files, or Pillow images.
        compress: whether the compressor is called on them; otherwise images keep all their tokens.
    """

    def __init__(self, *sources: ImageSource, compress: bool = False) -> None:
        if not sources:
            raise InputError(
                "got no image: expected at least one, or None in place of Images() for text only"
            )
        self.sources = sources
        self.compress = compress

    def __len__(self) -> int:
        return len(self.sources)

    def read(self) -> list[UInt8[Tensor, "_ _ 3"]]:
        """Decode the images, each as `read_image` does."""
        return [read_image(source) for source in self.sources]


def read_image(source: ImageSource) -> UInt8[Tensor, "h w 3"]:
    """Decode one image, upright as its EXIF orientation says.

    Palettes and greyscale become RGB, and 16-bit greyscale becomes 8-bit. Transparency is dropped, as upstream
    does: the colours under it show. An animation gives its first picture.

    Args:
        source: a path or the content of a JPEG, PNG, WebP, GIF, BMP, TIFF or PPM file, or a Pillow image.

    Returns:
        RGB pixels (H, W, 3), uint8, on the CPU.

    Raises:
        ImageError: the file is missing, damaged, of another format, or has too many pixels to be safe.
        InputError: the source is of another type.
    """
    if isinstance(source, Image.Image):
        with _damage_as_error("the image"):
            return _to_rgb(source)
    if not isinstance(source, (str, Path, bytes)):
        raise InputError(f"an image must be a path, bytes or a Pillow image, got {type(source).__name__}")
    name = f"image of {len(source):,} bytes in memory" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else _read_file(Path(source), name)
    with _damage_as_error(name), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        return _to_rgb(image)


def _read_file(path: Path, name: str) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImageError(f"{name} is not a regular file: give the path of one image file")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"there is no file {name}: check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError(f"{name} cannot be read: {error}") from error


@contextmanager
def _damage_as_error(name: str) -> Iterator[None]:
    try:
        yield
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} is too large: {error}; shrink it first") from error
    except Image.UnidentifiedImageError as error:
        formats = ", ".join(_FORMATS)
        raise ImageError(f"{name} is no image that can be read: expected one of {formats}") from error
    except _DAMAGE as error:
        raise ImageError(f"{name} is damaged: {error}; save it again") from error


def _to_rgb(image: Image.Image) -> UInt8[Tensor, "h w 3"]:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _BITS_16:
        grey = np.asarray(upright).astype(np.uint16) >> 8
        upright = Image.fromarray(grey.astype(np.uint8))
    elif upright.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {upright.mode} have no known range, convert them to 8 bits")
    elif upright.mode in ("P", "PA"):  # a palette may have transparent colours: first to RGBA
        upright = upright.convert("RGBA")
    return torch.from_numpy(np.array(upright.convert("RGB")))
