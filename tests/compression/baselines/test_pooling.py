from __future__ import annotations

import pytest
import torch

from llava_scissor.compression.baselines.pooling import Pooling
from llava_scissor.errors import InputError
from tests.compression.baselines.budgets import COUNTS, SIZE
from tests.compression.checks import assert_well_formed
from tests.compression.draws import constant, draw, gaussian, ratio_of


def pool(video, count):
    return Pooling(retention_ratio=ratio_of(count, video.shape[0] * video.shape[1]))(video)


@pytest.mark.parametrize(("frames", "count"), COUNTS)
def test_the_budget_is_met_and_nothing_is_dropped(frames, count):
    video = draw(gaussian, frames, SIZE, 4)
    result = pool(video, count)
    assert result.num_kept == count
    assert_well_formed(result, video)
    assert torch.equal(result.assignment, result.component)
    for cell in range(count):
        mean = video.flatten(0, 1)[result.component == cell].mean(0)
        torch.testing.assert_close(result.tokens[cell], mean)
    shares = result.frame_span.float().mean(1)
    assert (shares.diff() >= 0).all()
    if count >= frames:
        assert torch.equal(result.frame_span[:, 0], result.frame_span[:, 1])
        per_frame = torch.bincount(result.frame_span[:, 0])
        assert per_frame.max() - per_frame.min() <= 1


@pytest.mark.parametrize("count", [1, 2, 5, 17, 30, 71, 72])
def test_cells_are_rectangles(count):
    cells = pool(draw(gaussian, 2, 36, 3), count).component.view(2, 6, 6)
    for cell in range(count):
        frames, rows, columns = (cells == cell).nonzero(as_tuple=True)
        box = [int(axis.max() - axis.min()) + 1 for axis in (frames, rows, columns)]
        assert box[0] * box[1] * box[2] == len(frames)


# Cells of equal size, as many rows of them as the square root of their number says.
@pytest.mark.parametrize(
    ("side", "rows", "columns"),
    [(6, 1, 1), (6, 1, 2), (6, 2, 2), (6, 2, 3), (6, 3, 3), (6, 6, 6), (12, 3, 4), (14, 7, 7)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_equal_cells_are_adaptive_average_pooling(side, rows, columns, dtype):
    video = draw(gaussian, 3, side * side, 5).to(dtype)
    found = pool(video, 3 * rows * columns).tokens.view(3, rows, columns, 5)
    image = video.float().view(3, side, side, 5).permute(0, 3, 1, 2)
    expected = torch.nn.functional.adaptive_avg_pool2d(image, (rows, columns)).permute(0, 2, 3, 1)
    torch.testing.assert_close(found, expected.to(dtype))
    torch.testing.assert_close(
        found.float().mean((0, 1, 2)), video.float().mean((0, 1)), rtol=2e-3, atol=2e-3
    )


@pytest.mark.parametrize(("frames", "count"), [(6, 2), (6, 3), (4, 1)])
def test_runs_of_whole_frames(frames, count):
    video = draw(gaussian, frames, SIZE, 4)
    expected = video.view(count, frames // count * SIZE, 4).mean(1)
    torch.testing.assert_close(pool(video, count).tokens, expected)


@pytest.mark.parametrize("count", [1, 2, 4, 7, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_constant_stays_so(count, dtype):
    video = draw(constant, 3, SIZE, 4).to(dtype)
    torch.testing.assert_close(pool(video, count).tokens, video[0, :1].expand(count, -1))


def test_float16_does_not_overflow():
    assert pool(torch.full((2, 100, 1), 65504.0, dtype=torch.float16), 3).tokens.tolist() == [[65504.0]] * 3


@pytest.mark.parametrize("size", [2, 8, 195])
def test_only_square_grids(size):
    with pytest.raises(InputError, match=f"needs a square grid of tokens in each frame, got {size}; choose"):
        Pooling(retention_ratio=0.5)(torch.ones(2, size, 3))
