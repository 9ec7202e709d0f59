from __future__ import annotations

import pytest
import torch

from llava_scissor.compression.baselines.uniform import UniformTokens
from tests.compression.baselines.budgets import COUNTS, SIZE
from tests.compression.draws import draw, gaussian, ratio_of


@pytest.mark.parametrize(("frames", "count"), COUNTS)
def test_every_frame_has_an_even_share(frames, count):
    video = draw(gaussian, frames, SIZE, 4)
    result = UniformTokens(retention_ratio=ratio_of(count, frames * SIZE))(video)
    shares = (result.assignment.view(frames, SIZE) >= 0).sum(1)
    assert shares.max() - shares.min() <= 1


@pytest.mark.parametrize(("count", "kept"), [(3, [1, 4, 7]), (1, [4]), (9, list(range(9)))])
def test_tokens_are_evenly_spread_in_a_frame(count, kept):
    result = UniformTokens(retention_ratio=ratio_of(count, 9))(torch.ones(1, 9, 2))
    assert (result.assignment >= 0).nonzero().flatten().tolist() == kept


def test_with_fewer_tokens_than_frames_the_frames_are_evenly_spread():
    result = UniformTokens(retention_ratio=ratio_of(2, 8 * SIZE))(torch.ones(8, SIZE, 2))
    assert result.frame_span.tolist() == [[1, 1], [5, 5]]
