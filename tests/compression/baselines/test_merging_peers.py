"""The defining property of each method that merges tokens."""

from __future__ import annotations

import pytest
import torch

from llava_scissor.compression.baselines.prunevid import PruneVid, contiguous_windows
from llava_scissor.compression.baselines.tome import ToMe
from tests.compression.baselines.budgets import SIZE
from tests.compression.draws import draw, gaussian, ratio_of, smooth


def keep(method, video, count, **options):
    return method(retention_ratio=ratio_of(count, video.shape[0] * video.shape[1]), **options)(video)


def means(video, component, count):
    flat = video.flatten(0, 1)
    return torch.stack([flat[component == row].mean(0) for row in range(count)])


@pytest.mark.parametrize("count", [1, 5, 12, 20, 35])
def test_tome_loses_nothing(count):
    video = draw(smooth, 4, SIZE, 5)
    result = keep(ToMe, video, count)
    assert result.sizes.sum() == 4 * SIZE
    torch.testing.assert_close(result.tokens, means(video, result.component, count))
    total = (result.sizes[:, None] * result.tokens).sum(0)
    torch.testing.assert_close(total, video.sum((0, 1)), rtol=1e-4, atol=1e-4)


def test_tome_merges_the_most_similar_pair_of_the_two_sets_first():
    video = draw(gaussian, 3, SIZE, 5)
    unit = torch.nn.functional.normalize(video.flatten(0, 1).double(), dim=-1)
    similarity = unit[0::2] @ unit[1::2].T
    first, second = divmod(int(similarity.argmax()), similarity.shape[1])
    result = keep(ToMe, video, 3 * SIZE - 1)
    assert result.component[2 * first] == result.component[2 * second + 1]
    assert sorted(result.sizes.tolist()) == [1] * (3 * SIZE - 2) + [2]


def test_tome_by_loops():
    video = draw(gaussian, 2, SIZE, 5)
    groups = [[i] for i in range(2 * SIZE)]
    flat = video.flatten(0, 1).double()
    while len(groups) > 4:
        mean = torch.stack([flat[group].mean(0) for group in groups])
        unit = torch.nn.functional.normalize(mean, dim=-1)
        best = [(float((unit[1::2] @ unit[a]).max()), a) for a in range(0, len(groups), 2)]
        joins = {a: 2 * int((unit[1::2] @ unit[a]).argmax()) + 1 for _, a in best}
        number = min(len(groups) // 2, len(groups) - 4)
        gone = [a for _, a in sorted(best, key=lambda pair: -pair[0])[:number]]
        for a in gone:
            groups[joins[a]] += groups[a]
        groups = [group for i, group in enumerate(groups) if i not in gone]
    component = keep(ToMe, video, 4).component
    assert [sorted(g) for g in groups] == [(component == k).nonzero().flatten().tolist() for k in range(4)]


@pytest.mark.parametrize("frames", [2, 5])
def test_prunevid_keeps_a_still_video_once(frames):
    picture = draw(gaussian, 1, SIZE, 5)
    result = keep(PruneVid, picture.expand(frames, SIZE, 5).clone(), SIZE)
    torch.testing.assert_close(result.tokens, picture[0])
    assert result.component.tolist() == list(range(SIZE)) * frames


@pytest.mark.parametrize("count", [8, 20, 35, 44])
def test_prunevid_averages_and_loses_nothing(count):
    moving = draw(gaussian, 5, SIZE, 5)
    video = torch.cat([draw(gaussian, 1, SIZE, 5).expand(5, SIZE, 5)[:, :4], moving[:, 4:]], dim=1)
    result = keep(PruneVid, video, count, window_ratio=0.2)
    assert result.sizes.sum() == 5 * SIZE
    torch.testing.assert_close(result.tokens, means(video, result.component, count))
    spans = result.frame_span.diff(dim=1)[:, 0].tolist()
    assert set(spans) <= {0, 4}
    assert spans == sorted(spans, reverse=True)
    assert 4 in spans if count < 30 else True


@pytest.mark.parametrize(
    ("labels", "windows"),
    [
        ([0], [(0, 1)]),
        ([0, 1, 0, 1], [(0, 4)]),
        ([0, 0, 1, 1], [(0, 2), (2, 4)]),
        ([0, 0, 1, 2, 2, 2], [(0, 2), (2, 6)]),
        ([0, 0, 1, 2, 2], [(0, 3), (3, 5)]),
        ([1, 0, 0, 2, 0, 0, 0, 2, 2], [(0, 7), (7, 9)]),
        ([3, 3, 0, 0, 0, 3, 3, 3, 3], [(0, 5), (5, 9)]),
    ],
)
def test_windows_are_the_longest_runs(labels, windows):
    assert contiguous_windows(labels) == windows
