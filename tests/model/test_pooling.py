from __future__ import annotations

import math

import pytest
import torch

from llava_scissor.errors import InputError
from llava_scissor.model.pooling import pool_frames


def naive(grid: list[list[float]], stride: int) -> list[float]:
    """Bilinear by hand: output i reads (i + 0.5) * s / t - 0.5, clamped to the grid."""
    side = len(grid)
    pooled_side = math.ceil(side / stride)
    out = []
    for row in range(pooled_side):
        for column in range(pooled_side):
            y, x = (max((i + 0.5) * side / pooled_side - 0.5, 0) for i in (row, column))
            y0, x0 = math.floor(y), math.floor(x)
            y1, x1 = min(y0 + 1, side - 1), min(x0 + 1, side - 1)
            top = grid[y0][x0] * (1 - (x - x0)) + grid[y0][x1] * (x - x0)
            bottom = grid[y1][x0] * (1 - (x - x0)) + grid[y1][x1] * (x - x0)
            out.append(top * (1 - (y - y0)) + bottom * (y - y0))
    return out


@pytest.mark.parametrize(("side", "stride"), [(27, 2), (16, 2), (5, 2), (5, 3), (4, 1), (3, 7), (1, 2)])
def test_it_equals_interpolation_by_hand(side, stride):
    torch.manual_seed(0)
    patches = torch.randn(2, side * side, 1, dtype=torch.float64)
    expected = [naive(frame.view(side, side).tolist(), stride) for frame in patches]
    torch.testing.assert_close(
        pool_frames(patches, stride)[..., 0], torch.tensor(expected, dtype=torch.float64)
    )


def test_the_real_grid_gives_196_tokens_that_read_at_most_four_patches():
    patches = torch.eye(729)[None]  # each patch has a channel of its own
    pooled = pool_frames(patches, 2)[0]
    assert pooled.shape == (196, 729)
    assert (pooled > 0).sum(-1).max() <= 4
    torch.testing.assert_close(pooled.sum(-1), torch.ones(196))


def test_a_grid_that_is_not_square_is_refused():
    with pytest.raises(InputError, match="square grid of patches, got 8"):
        pool_frames(torch.zeros(1, 8, 2), 2)
