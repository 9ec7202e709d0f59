"""Components and kept tokens painted over the frames they come from."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from llava_scissor.compression import CompressionResult
from llava_scissor.errors import InputError

_TINT = 0.5
_OUTLINE = 0.35
_DROPPED = 20
"""Grey level of places whose token was dropped."""


@dataclass(frozen=True, eq=False)
class TokenMap:
    """Where the tokens of a video lie in its frames.

    Attributes:
        component: component of each place, -1 if its token was dropped (F, R, C).
        assignment: kept token that each place was merged into, -1 if it was dropped (F, R, C).
        sizes: number of tokens in each component (K,).
    """

    component: Int64[np.ndarray, "f r c"]
    assignment: Int64[np.ndarray, "f r c"]
    sizes: Int64[np.ndarray, " k"]

    @classmethod
    def of(cls, result: CompressionResult, num_frames: int) -> TokenMap:
        """Lay out a result over the frames; their tokens must be a square grid.

        Raises:
            InputError: the number of tokens is not that of so many square grids.
        """
        side = math.isqrt(result.num_input // num_frames)
        if num_frames * side * side != result.num_input:
            raise InputError(
                f"{result.num_input} tokens of {num_frames} frames are not a square grid in each frame"
            )
        shape = (num_frames, side, side)
        component, assignment = (
            a.cpu().numpy().reshape(shape) for a in (result.component, result.assignment)
        )
        return cls(component, assignment, result.sizes.cpu().numpy())


def component_colors(token_map: TokenMap) -> Float32[np.ndarray, "k 3"]:
    """Give each component a colour of its own, 0..255: the larger ones get those that differ most."""
    colors = np.empty((len(token_map.sizes), 3), np.float32)
    for rank, component in enumerate(np.argsort(-token_map.sizes, kind="stable")):
        hue = rank * (math.sqrt(5) - 1) / 2 % 1  # neighbours in rank lie far apart on the circle
        colors[component] = colorsys.hsv_to_rgb(hue, 0.9 - 0.3 * (rank % 3) / 2, 1)
    return 255 * colors


def paint_components(
    frames: UInt8[np.ndarray, "f h w 3"], token_map: TokenMap
) -> UInt8[np.ndarray, "f h w 3"]:
    """Tint the places of every component that has more than one token, and outline all of them.

    A component has the same colour in every frame. What keeps its own colours is a token of its own; what was
    dropped is nearly black.
    """
    colors = component_colors(token_map)
    painted = np.empty_like(frames)
    for frame, component, out in zip(frames, token_map.component, painted, strict=True):
        label = _to_pixels(component, frame.shape[:2])
        is_shared = (label >= 0) & (token_map.sizes[label] > 1)
        picture = frame.astype(np.float32)
        picture[is_shared] += _TINT * (colors[label[is_shared]] - picture[is_shared])
        picture[label < 0] = _DROPPED
        picture[_outline(label)] *= _OUTLINE
        out[:] = picture
    return painted


def paint_kept(frames: UInt8[np.ndarray, "f h w 3"], token_map: TokenMap) -> UInt8[np.ndarray, "f h w 3"]:
    """Fill each place with the mean colour of all places that were merged into the same kept token.

    Two places that look the same here are the same to the language model, wherever and whenever they are.
    """
    side = token_map.assignment.shape[1]
    means = np.stack([_cell_means(frame, side) for frame in frames])  # (F, R, C, 3)
    kept = token_map.assignment
    is_kept = kept >= 0
    num_kept = len(token_map.sizes)
    total = np.zeros((num_kept, 3))
    np.add.at(total, kept[is_kept], means[is_kept])
    count = np.bincount(kept[is_kept], minlength=num_kept)
    color = np.full((*kept.shape, 3), _DROPPED, np.float64)
    color[is_kept] = (total / np.maximum(count, 1)[:, None])[kept[is_kept]]
    height, width = frames.shape[1:3]
    rows, columns = _cells(height, side), _cells(width, side)
    return color[:, rows][:, :, columns].round().astype(np.uint8)


def _cells(num_pixels: int, side: int) -> Int64[np.ndarray, " pixels"]:
    """Return the row or column of the grid that each pixel lies in."""
    return np.arange(num_pixels) * side // num_pixels


def _to_pixels(grid: Int64[np.ndarray, "r c"], size: tuple[int, int]) -> Int64[np.ndarray, "h w"]:
    rows, columns = (_cells(length, len(grid)) for length in size)
    return grid[rows][:, columns]


def _outline(label: Int64[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Tell which pixels have another label to their right or below them."""
    edge = np.zeros(label.shape, bool)
    edge[:, :-1] |= label[:, :-1] != label[:, 1:]
    edge[:-1] |= label[:-1] != label[1:]
    return edge


def _cell_means(frame: UInt8[np.ndarray, "h w 3"], side: int) -> Float32[np.ndarray, "r c 3"]:
    rows, columns = _cells(frame.shape[0], side), _cells(frame.shape[1], side)
    cell = rows[:, None] * side + columns
    count = np.bincount(cell.ravel(), minlength=side * side)
    total = [np.bincount(cell.ravel(), frame[..., i].ravel(), side * side) for i in range(3)]
    return (np.stack(total, -1) / np.maximum(count, 1)[:, None]).reshape(side, side, 3).astype(np.float32)
