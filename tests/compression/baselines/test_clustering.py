from __future__ import annotations

import pytest
import torch

from llava_scissor.compression.baselines.clustering import ROWS_EACH, density_peaks, peak_scores, segments
from tests.compression.baselines.peaks import peaks_by_loops
from tests.compression.draws import duplicates, gaussian


@pytest.mark.parametrize("n", [1, 2, 6, 25])
@pytest.mark.parametrize("num_neighbours", [1, 4, 7])
@pytest.mark.parametrize("seed", range(3))
def test_peaks_are_those_of_the_definition(n, num_neighbours, seed):
    points = gaussian(1, n, 5, torch.Generator().manual_seed(seed))[0]
    for count in {1, (n + 1) // 2, n}:
        centres, label = density_peaks(points, count, num_neighbours)
        assert (centres.tolist(), label.tolist()) == peaks_by_loops(points.double(), count, num_neighbours)


def test_equal_points_share_the_label_of_a_centre():
    points = duplicates(1, 30, 4, torch.Generator().manual_seed(1))[0]
    centres, label = density_peaks(points, 5, 4)
    assert torch.equal(points[centres][label], points)
    assert len(points[centres].unique(dim=0)) == 5


def test_far_points_do_not_underflow():
    points = 1e4 * gaussian(1, 12, 3, torch.Generator().manual_seed(0))[0]
    scores, _ = peak_scores(points, 4)
    assert scores.isfinite().all()
    assert scores.unique().numel() == 12


def test_constant_points_and_more_rows_than_a_block():
    centres, label = density_peaks(torch.full((ROWS_EACH + 5, 2), 3.3), 3, 7)
    assert centres.tolist() == [0, 1, 2]
    assert label.bincount().tolist() == [ROWS_EACH + 3, 1, 1]


@pytest.mark.parametrize(
    ("similarity", "at_least", "tau", "expected"),
    [
        ([], 8, 0.9, [(0, 1)]),
        ([0.99, 0.99, 0.99], 1, 0.9, [(0, 4)]),
        ([0.99, 0.5, 0.99], 1, 0.9, [(0, 2), (2, 4)]),
        ([0.99, 0.95, 0.99], 2, 0.9, [(0, 2), (2, 4)]),
        ([0.99, 0.95, 0.3, 0.99], 3, 0.9, [(0, 2), (2, 3), (3, 5)]),
        ([0.99, 0.99], 8, 0.0, [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_segments(similarity, at_least, tau, expected):
    assert segments(torch.tensor(similarity), at_least, tau) == expected
