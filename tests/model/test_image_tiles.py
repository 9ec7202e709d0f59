from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.model.geometry import Geometry
from llava_scissor.model.image_tiles import choose_grid, cut_tiles, join_tiles, pad_to_square
from llava_scissor.video import preprocess_frames

GRIDS = Geometry.image_grids
sides = st.integers(1, 5000)


def naive_grid(height: int, width: int, tile: int) -> tuple[int, int]:
    """The published rule, candidate by candidate."""
    best, most_shown, least_spare = None, -1, math.inf
    for rows, columns in GRIDS:
        scale = min(columns * tile / width, rows * tile / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        spare = rows * tile * columns * tile - shown
        if shown > most_shown or (shown == most_shown and spare < least_spare):
            best, most_shown, least_spare = (rows, columns), shown, spare
    return best


def num_tokens(height: int, width: int, side: int = 27, tile: int = 384) -> int:
    grid = choose_grid(height, width, tile, GRIDS)
    patches = torch.zeros(1 + grid[0] * grid[1], side * side, 1)
    return len(join_tiles(patches, grid, height, width, torch.ones(1), max_tiles=9))


@given(sides, sides)
def test_the_grid_is_that_of_the_published_rule(height, width):
    assert choose_grid(height, width, 384, GRIDS) == naive_grid(height, width, 384)


@pytest.mark.parametrize(
    ("width", "height", "grid", "num_expected"),
    [
        (384, 384, (1, 1), 1485),
        (640, 480, (2, 2), 2929),
        (1024, 899, (3, 3), 6551),
        (1920, 1080, (3, 5), 7269),
        (1080, 1920, (5, 3), 7317),
        (4000, 3000, (5, 6), 7309),
    ],
)
def test_token_counts_of_upstream(width, height, grid, num_expected):
    assert choose_grid(height, width, 384, GRIDS) == grid
    assert num_tokens(height, width) == num_expected


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9000), (9000, 1), (2, 3), (8000, 8000)])
def test_extreme_sizes_have_at_least_the_view_of_the_whole(height, width):
    assert num_tokens(height, width) >= 729


def test_tiles_are_the_fitted_image_row_by_row_centred_on_black():
    picture = torch.full((10, 40, 3), 200, dtype=torch.uint8)
    whole, *tiles = cut_tiles(picture, (2, 2), 20)
    assert len(tiles) == 4
    assert whole.unique().tolist() == [200]
    canvas = torch.cat([torch.cat(tiles[:2], dim=1), torch.cat(tiles[2:], dim=1)])
    rows = canvas.amax(dim=(1, 2))
    assert rows.tolist() == [0] * 15 + [200] * 10 + [0] * 15


def test_the_whole_is_squashed_like_a_frame():
    picture = torch.randint(256, (33, 57, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    views = preprocess_frames(cut_tiles(picture, (1, 2), 24), 24)
    assert views[:1].equal(preprocess_frames(picture[None], 24))


@pytest.mark.parametrize(("height", "width", "at"), [(2, 5, (1, 0)), (5, 2, (0, 1)), (3, 3, (0, 0))])
def test_a_square_is_padded_with_the_mean(height, width, at):
    picture = torch.full((height, width, 3), 9, dtype=torch.uint8)
    square = pad_to_square(picture, (0.5, 0.25, 1.0))
    side = max(height, width)
    assert square.shape == (side, side, 3)
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[at[0] : at[0] + height, at[1] : at[1] + width] = True
    assert (square[inside] == 9).all()
    assert (square[~inside] == torch.tensor([127, 63, 255])).all()


def test_the_map_is_in_reading_order_with_an_end_to_each_row():
    rows, columns, side = 2, 3, 4
    places = torch.arange(rows * side * columns * side).view(rows * side, columns * side).float()
    tiles = [
        places[r * side : (r + 1) * side, c * side : (c + 1) * side].flatten()
        for r in range(rows)
        for c in range(columns)
    ]
    patches = torch.stack([torch.full((side * side,), -2.0), *tiles])[..., None]
    tokens = join_tiles(patches, (rows, columns), 20, 30, torch.tensor([-1.0]), max_tiles=9)[:, 0]
    assert (tokens[:16] == -2).all()
    read = tokens[16:].view(8, 13)
    assert read[:, :-1].equal(places)
    assert (read[:, -1] == -1).all()


@pytest.mark.parametrize(
    ("height", "width", "kept"), [(50, 100, (4, 8)), (100, 50, (8, 4)), (100, 60, (8, 4)), (70, 100, (6, 8))]
)
def test_the_border_is_cut_from_the_map(height, width, kept):
    patches = torch.zeros(5, 16, 1)
    tokens = join_tiles(patches, (2, 2), height, width, torch.ones(1), max_tiles=9)
    assert len(tokens) == 16 + kept[0] * (kept[1] + 1)


@pytest.mark.parametrize(
    ("columns", "max_tiles", "num_rows"),
    [(6, 10, 8), (5, 8, 7), (6, 12, 8), (6, 3, 4)],  # up to a factor of 1.1 along a side is let through
)
def test_a_map_is_shrunk_from_well_over_the_largest_number_of_tiles(columns, max_tiles, num_rows):
    patches = torch.zeros(1 + 2 * columns, 16, 1)
    tokens = join_tiles(patches, (2, columns), 2, columns, torch.ones(1), max_tiles)
    assert tokens.sum() == num_rows
    factor = max(8 / num_rows, 1) if num_rows == 8 else (2 * columns / max_tiles) ** 0.5
    assert len(tokens) == 16 + num_rows * (int(4 * columns // factor) + 1)


def test_without_a_newline_the_map_keeps_its_border_and_its_size():
    places = torch.arange(16.0).view(4, 4)
    tiles = [places[:2, :2], places[:2, 2:], places[2:, :2], places[2:, 2:]]
    patches = torch.stack([torch.full((4,), -2.0), *(tile.flatten() for tile in tiles)])[..., None]
    tokens = join_tiles(patches, (2, 2), 10, 100, None, max_tiles=1)[:, 0]
    assert tokens.tolist() == [-2.0] * 4 + list(range(16))


def test_without_a_largest_number_of_tiles_no_map_is_shrunk():
    patches = torch.ones(1 + 36, 16, 1)
    assert len(join_tiles(patches, (6, 6), 50, 50, torch.ones(1), max_tiles=None)) == 16 + 24 * 25
