from __future__ import annotations

import numpy as np
import pytest
import torch

from llava_scissor.compression import CompressionResult
from llava_scissor.compression.protocol import summarize
from llava_scissor.errors import InputError
from llava_scissor.visualization.maps import TokenMap, component_colors, paint_components, paint_kept


def result_of(
    component: list[int], num_frames: int, assignment: list[int] | None = None
) -> CompressionResult:
    labels = torch.tensor(component)
    tokens = torch.zeros(num_frames, len(component) // num_frames, 4)
    merged = labels if assignment is None else torch.tensor(assignment)
    return summarize(tokens, torch.zeros(int(labels.max()) + 1, 4), labels, merged)


def flat(level: int, num_frames: int = 2, size: tuple[int, int] = (6, 4)) -> np.ndarray:
    return np.full((num_frames, *size, 3), level, np.uint8)


def corners(picture: np.ndarray) -> list[np.ndarray]:
    """The inner colours of the four places of a grid of two by two."""
    height, width = picture.shape[:2]
    return [picture[y, x] for y in (0, height - 1) for x in (0, width - 1)]


def test_a_component_has_one_colour_in_all_frames_and_others_have_another() -> None:
    token_map = TokenMap.of(result_of([0, 0, 1, 1, 0, 0, 1, 1], 2), 2)
    first, second = (corners(f) for f in paint_components(flat(100), token_map))
    assert np.array_equal(first, second)
    assert np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], first[3])
    expected = 100 + 0.5 * (component_colors(token_map) - 100)
    assert np.abs(first[0] - expected[0]).max() <= 1
    assert np.abs(first[3] - expected[1]).max() <= 1


def test_a_token_of_its_own_keeps_its_colours_and_a_dropped_one_is_dark() -> None:
    token_map = TokenMap.of(result_of([0, -1, 1, 1], 1), 1)
    alone, dropped, *shared = corners(paint_components(flat(100, 1), token_map)[0])
    assert (alone == 100).all()
    assert (dropped == 20).all()
    assert all((s != 100).any() for s in shared)


def test_components_are_outlined() -> None:
    token_map = TokenMap.of(result_of([0, 1, 0, 1], 1), 1)
    picture = paint_components(flat(200, 1), token_map)[0].astype(int).sum(-1)
    assert (picture[:, 1] < picture[:, 0]).all(), "the last column of the left component is darker"
    assert (picture[:, 2] == picture[:, 3]).all()


def test_kept_places_have_the_mean_colour_of_their_token() -> None:
    frames = flat(0, 2, (2, 2))
    frames[0, 0, 0], frames[1, 1, 1], frames[0, 0, 1] = 30, 90, 200
    kept = paint_kept(frames, TokenMap.of(result_of([0, 1, 2, 2, 2, 2, 2, 0], 2), 2))
    assert kept[0, 0, 0].tolist() == kept[1, 1, 1].tolist() == [60, 60, 60]
    assert kept[0, 0, 1].tolist() == [200, 200, 200]
    assert kept[1, 0, 0].tolist() == [0, 0, 0]


def test_what_counts_for_kept_places_is_where_they_were_merged() -> None:
    frames = flat(0, 1, (2, 2))
    frames[0, 0, 0] = 90
    token_map = TokenMap.of(result_of([0, 0, 1, 1], 1, assignment=[1, 0, 1, -1]), 1)
    kept = paint_kept(frames, token_map)[0]
    assert kept[0, 0].tolist() == kept[1, 0].tolist() == [45, 45, 45]
    assert kept[1, 1].tolist() == [20, 20, 20]


def test_the_largest_components_differ_most() -> None:
    token_map = TokenMap.of(result_of([2, 2, 2, 2, 0, 1, 1, 0, 0], 1), 1)
    colors = component_colors(token_map)
    assert len({tuple(color) for color in colors.round(3).tolist()}) == 3
    assert np.linalg.norm(colors[2] - colors[0]) > 150


def test_a_size_that_the_grid_does_not_divide() -> None:
    token_map = TokenMap.of(result_of(list(range(9)), 1), 1)
    assert paint_components(flat(80, 1, (7, 5)), token_map).shape == (1, 7, 5, 3)
    assert (paint_kept(flat(80, 1, (7, 5)), token_map) == 80).all()


def test_tokens_that_are_no_square_grid_are_refused() -> None:
    with pytest.raises(InputError, match="6 tokens of 1 frames are not a square grid"):
        TokenMap.of(result_of([0, 1, 2, 3, 4, 5], 1), 1)
