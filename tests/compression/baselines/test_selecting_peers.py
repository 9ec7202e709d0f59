"""The defining property of each method that keeps tokens as they are."""

from __future__ import annotations

import pytest
import torch

from llava_scissor.compression.baselines.divprune import DivPrune, farthest_first
from llava_scissor.compression.baselines.norm import L2Norm
from llava_scissor.compression.baselines.temporal import EVS, DyCoke
from llava_scissor.compression.baselines.uniform import UniformFrames
from llava_scissor.compression.baselines.vidcom2 import VidCom2
from llava_scissor.compression.engines.tiled.similarity import directions
from tests.compression.baselines.budgets import COUNTS, SIZE
from tests.compression.draws import draw, duplicates, gaussian, orthogonal, ratio_of


def kept(method, video, count, **options):
    """Which tokens stay, (F, P)."""
    ratio = ratio_of(count, video.shape[0] * video.shape[1])
    return (method(retention_ratio=ratio, **options)(video).component >= 0).view(video.shape[:2])


def cosine(left, right):
    return torch.nn.functional.cosine_similarity(left.double(), right.double(), dim=-1)


@pytest.mark.parametrize(("frames", "count"), COUNTS)
def test_uniform_frames_keeps_as_few_frames_as_can_hold_the_budget(frames, count):
    per_frame = kept(UniformFrames, draw(gaussian, frames, SIZE, 4), count).sum(1)
    used = per_frame[per_frame > 0]
    assert per_frame.sum() == count
    assert len(used) == -(-count // SIZE)
    assert used.max() - used.min() <= 1


def test_uniform_frames_are_spread():
    assert kept(UniformFrames, torch.ones(8, SIZE, 2), 2 * SIZE).all(1).tolist() == [0, 0, 1, 0, 0, 0, 1, 0]
    assert kept(UniformFrames, torch.ones(5, SIZE, 2), 3).nonzero().tolist() == [[2, 1], [2, 4], [2, 7]]


def test_l2norm_keeps_the_longest():
    video = draw(gaussian, 4, SIZE, 5)
    stays, norm = kept(L2Norm, video, 11), video.norm(dim=-1)
    assert norm[stays].min() >= norm[~stays].max()
    rotation = torch.linalg.qr(draw(gaussian, 1, 5, 5)[0]).Q
    assert torch.equal(kept(L2Norm, video @ rotation, 11), stays)
    video[2, 4] *= 1000
    assert kept(L2Norm, video, 1).nonzero().tolist() == [[2, 4]]


def test_dycoke_compares_within_a_window():
    video = draw(gaussian, 10, SIZE, 5)
    count = 3 * SIZE + 7 * 4  # four tokens of each frame that is not the first of its window
    stays = kept(DyCoke, video, count)
    for frame, partner in enumerate([None, 0, 0, 2, None, 4, 4, 6, None, 8]):
        if partner is None:
            assert stays[frame].all()
        else:
            alike = cosine(video[frame], video[partner])
            assert stays[frame].sum() == 4
            assert alike[stays[frame]].max() <= alike[~stays[frame]].min()


def test_dycoke_with_less_than_a_frame_in_four():
    video = draw(gaussian, 10, SIZE, 5)
    stays = kept(DyCoke, video, 2 * SIZE + 8)  # windows of eight frames; one token of each other one
    assert stays.sum(1).tolist() == [SIZE, *[1] * 7, SIZE, 1]
    for frame, partner in [(1, 0), (2, 0), (3, 2), (4, 0), (5, 4), (6, 4), (7, 6), (9, 8)]:
        assert stays[frame].nonzero().item() == cosine(video[frame], video[partner]).argmin()


@pytest.mark.parametrize("method", [DyCoke, EVS])
def test_of_a_still_video_the_first_frame_is_enough(method):
    video = draw(gaussian, 1, SIZE, 5).expand(4, SIZE, 5).clone()
    video[1, 6] += 0.01
    stays = kept(method, video, SIZE + 3)
    assert stays[0].all()
    assert stays[1, 6]
    assert (
        stays.nonzero()[SIZE:].tolist()
        == {
            DyCoke: [[1, 6], [2, 0], [3, 0]],
            EVS: [[1, 0], [1, 6], [2, 6]],  # that of frame 2 changes back
        }[method]
    )


def test_evs_keeps_what_changed_most():
    video = draw(gaussian, 6, SIZE, 5)
    stays = kept(EVS, video, 25)
    change = 1 - cosine(video[1:], video[:-1])
    assert stays[0].all()
    assert change[stays[1:]].min() >= change[~stays[1:]].max()


@pytest.mark.parametrize("method", [DyCoke, EVS])
def test_less_than_a_frame_is_spread_over_the_first(method):
    assert kept(method, draw(gaussian, 3, SIZE, 5), 3).nonzero().tolist() == [[0, 1], [0, 4], [0, 7]]


def test_divprune_is_greedy():
    flat = directions(draw(gaussian, 4, SIZE, 5)).unit.flatten(0, 1)
    apart = (1 - flat.double() @ flat.double().T).fill_diagonal_(torch.inf)
    picks = [int(apart.amin(1).argmax())]
    gaps = []
    for _ in range(19):
        gap = apart[picks].amin(0)
        gap[picks] = -torch.inf
        picks.append(int(gap.argmax()))
        gaps.append(float(gap.max()))
    assert [int(pick) for pick in farthest_first(flat, 20)] == picks
    assert gaps == sorted(gaps, reverse=True)


@pytest.mark.parametrize("kind", [duplicates, orthogonal])
def test_divprune_takes_every_direction_before_a_second_of_one(kind):
    video = draw(kind, 3, 6, 4)
    distinct = video.flatten(0, 1).unique(dim=0)
    stays = kept(DivPrune, video, len(distinct))
    assert torch.equal(video[stays].unique(dim=0), distinct)


def test_vidcom2_gives_an_outstanding_frame_more():
    video = draw(gaussian, 1, SIZE, 8).expand(6, SIZE, 8).clone()
    per_frame = kept(VidCom2, video, 20).sum(1)
    assert per_frame.max() - per_frame.min() <= 1
    video[3] = -video[3]
    assert kept(VidCom2, video, 20).sum(1).argmax() == 3


def test_vidcom2_by_loops():
    video = draw(gaussian, 4, SIZE, 7).double()
    calm = sorted(range(7), key=lambda c: float(video[..., c].var()))[:3]
    part = torch.nn.functional.normalize(video[..., calm], dim=-1)
    stays = kept(VidCom2, video.float(), 18)
    for frame in range(4):
        score = torch.zeros(SIZE)
        for place in range(SIZE):
            for mean in (part.mean((0, 1)), part[frame].mean(0)):
                squared = float((part[frame, place] - mean).square().sum())
                score[place] += sum(
                    torch.tensor(-squared / (2 * a)).exp() for a in (1 / 8, 1 / 4, 1 / 2, 1, 2)
                )
        assert score[stays[frame]].max() <= score[~stays[frame]].min()
