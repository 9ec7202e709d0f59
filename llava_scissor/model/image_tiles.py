"""From one image to the views that the vision tower sees, and from their patches to one map (anyres)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

Grid = tuple[int, int]  # rows and columns of tiles

_CAP_TOLERANCE = 1.1  # a map may exceed the largest number of tiles by this factor along a side


def choose_grid(height: int, width: int, tile_size: int, grids: Sequence[Grid]) -> Grid:
    """Return the grid of tiles that shows an image best.

    The image is fitted into each grid. The best grid shows the most pixels, where enlarging does not count. Of
    equally good ones, that with the least unused area is taken, then the first.

    Args:
        height: height of the image in pixels.
        width: width of the image in pixels.
        tile_size: side of a tile in pixels.
        grids: rows and columns to choose from.
    """

    def rank(grid: Grid) -> tuple[int, int]:
        rows, columns = grid[0] * tile_size, grid[1] * tile_size
        scale = min(columns / width, rows / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        return shown, shown - rows * columns

    return max(grids, key=rank)


def cut_tiles(picture: UInt8[Tensor, "h w 3"], grid: Grid, tile_size: int) -> UInt8[Tensor, "t s s 3"]:
    """Cut an image into its views: the whole and the tiles.

    Args:
        picture: RGB pixels.
        grid: rows and columns of tiles, from `choose_grid`.
        tile_size: side S of a tile in pixels.

    Returns:
        First the whole image squashed to a square, then the tiles row by row: the image is enlarged or shrunk
        (bicubic) until it fits the grid, its aspect ratio kept, and centred on black.
    """
    height, width = picture.shape[:2]
    canvas_height, canvas_width = grid[0] * tile_size, grid[1] * tile_size
    scale_h, scale_w = canvas_height / height, canvas_width / width
    if scale_w < scale_h:
        fitted = (canvas_width, min(math.ceil(height * scale_w), canvas_height))
    else:
        fitted = (min(math.ceil(width * scale_h), canvas_width), canvas_height)
    image = Image.fromarray(picture.numpy())
    canvas = Image.new("RGB", (canvas_width, canvas_height))
    corner = ((canvas_width - fitted[0]) // 2, (canvas_height - fitted[1]) // 2)
    canvas.paste(image.resize(fitted, Image.Resampling.BICUBIC), corner)
    whole = image.resize((tile_size, tile_size), Image.Resampling.BICUBIC)
    tiles = rearrange(np.asarray(canvas), "(r h) (c w) k -> (r c) h w k", h=tile_size, w=tile_size)
    return torch.from_numpy(np.concatenate([np.asarray(whole)[None], tiles]))


def pad_to_square(picture: UInt8[Tensor, "h w 3"], mean: Sequence[float]) -> UInt8[Tensor, "m m 3"]:
    """Centre an image on a square of the colour `mean` (0..1): how each of several images is shown."""
    height, width = picture.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = torch.tensor([int(value * 255) for value in mean], dtype=torch.uint8).repeat(side, side, 1)
    square[top : top + height, left : left + width] = picture
    return square


def join_tiles(
    patches: Float[Tensor, "t n d"],
    grid: Grid,
    height: int,
    width: int,
    newline: Float[Tensor, " d"] | None,
    max_tiles: int | None,
) -> Float[Tensor, "m d"]:
    """Turn the patches of the views into the visual tokens of one image.

    The tiles become one map. With a newline, what shows only the black border is cut off, a map of more than
    `max_tiles` tiles is shrunk (bilinear), and the newline follows each row. The patches of the whole image go
    first.

    Args:
        patches: projected patches of the whole image and of each tile, row-major (1 + tiles, s * s, D).
        grid: rows and columns of tiles.
        height: height of the image in pixels, before any resizing.
        width: width of the image in pixels.
        newline: what follows each row (D,); None to leave the map as it is.
        max_tiles: number of tiles above which a map is shrunk; None for never.

    Returns:
        Visual tokens (s * s + rows * (columns + 1), D); without a newline, (s * s + rows * columns, D).

    Reference: `anyres_max_9` with `spatial_unpad` upstream; without a newline, `spatial`. The border is computed
    in whole numbers, as transformers does in effect; upstream's floating point may come out one patch lower where
    the number is whole.
    """
    side = math.isqrt(patches.shape[1])
    whole, tiles = patches[0], patches[1:]
    tile_map = rearrange(
        tiles, "(r c) (h w) d -> d (r h) (c w)", r=grid[0], c=grid[1], h=side
    )  # (D, rows, columns)
    if newline is not None:
        tile_map = _cut_border(tile_map, height, width)
        if max_tiles is not None:
            tile_map = _shrink(tile_map, max_tiles * side**2)
        ends = newline.to(tile_map)[:, None, None].expand(-1, tile_map.shape[1], 1)
        tile_map = torch.cat([tile_map, ends], dim=2)  # (D, rows, columns + 1)
    return torch.cat([whole, rearrange(tile_map, "d h w -> (h w) d")])


def _cut_border(tile_map: Float[Tensor, "d h w"], height: int, width: int) -> Float[Tensor, "d _ _"]:
    rows, columns = tile_map.shape[1:]
    if width * rows > columns * height:  # wider than the map: the border is above and below
        border = (rows - height * columns // width) // 2
        return tile_map[:, border : rows - border]
    border = (columns - width * rows // height) // 2
    return tile_map[:, :, border : columns - border]


def _shrink(tile_map: Float[Tensor, "d h w"], max_patches: int) -> Float[Tensor, "d _ _"]:
    rows, columns = tile_map.shape[1:]
    factor = math.sqrt(rows * columns / max_patches)
    if factor <= _CAP_TOLERANCE:
        return tile_map
    size = (int(rows // factor), int(columns // factor))
    return functional.interpolate(tile_map[None], size, mode="bilinear")[0]
