"""The defining property of each method that looks at the attention of the vision tower."""

from __future__ import annotations

import itertools

import pytest
import torch

from llava_scissor.compression.baselines.fastvid import FastVID
from llava_scissor.compression.baselines.holitom import HoliTom, best_windows, blend
from llava_scissor.compression.baselines.unified import Unified, pick_unlike
from llava_scissor.compression.baselines.visionzip import VisionZip
from llava_scissor.compression.engines.tiled.similarity import directions
from llava_scissor.compression.protocol import TowerState
from tests.compression.baselines.budgets import SIZE
from tests.compression.baselines.peaks import peaks_by_loops
from tests.compression.draws import draw, gaussian, ratio_of, smooth


def state(video, seed=3):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(video.shape[:2], generator=generator)
    return TowerState(attention, torch.randn(*video.shape[:2], 4, generator=generator))


def keep(method, video, count, **options):
    return method(retention_ratio=ratio_of(count, video.shape[0] * video.shape[1]), **options)(
        video, state(video)
    )


def is_row_of(rows, video):
    return (rows[:, None] == video.flatten(0, 1)).all(-1).any(1)


def test_visionzip_by_loops():
    video = draw(gaussian, 3, 16, 5)
    tower = state(video)
    result = keep(VisionZip, video, 24, dominant_ratio=0.5)  # 4 dominant, 4 contextual a frame
    keys = torch.nn.functional.normalize(tower.keys, dim=-1)
    for frame in range(3):
        order = tower.attention[frame].argsort(descending=True).tolist()
        dominant, rest = sorted(order[:4]), sorted(order[4:])
        targets = rest[0::3]
        members = {target: [target] for target in targets}
        for place in set(rest) - set(targets):
            members[max(targets, key=lambda t: float(keys[frame, place] @ keys[frame, t]))].append(place)
        rows = result.tokens[8 * frame : 8 * frame + 8]
        assert torch.equal(rows[:4], video[frame, dominant])
        means = torch.stack([video[frame, members[target]].mean(0) for target in targets])
        torch.testing.assert_close(rows[4:], means)
    assert result.sizes.sum() == 3 * 16


def test_visionzip_keeps_one_dominant_token_where_there_is_one():
    video = draw(gaussian, 5, SIZE, 4)
    result = keep(VisionZip, video, 3)
    frames, places = (result.component >= 0).view(5, SIZE).nonzero(as_tuple=True)
    assert places.tolist() == [int(state(video).attention[frame].argmax()) for frame in frames]


@pytest.mark.parametrize("count", [7, 20, 41])
def test_fastvid_with_whole_centres_keeps_rows_of_the_source(count):
    video = draw(smooth, 7, SIZE, 4)
    result = keep(FastVID, video, count, centre_weight=1.0)
    assert is_row_of(result.tokens, video).all()
    salient = is_row_of(keep(FastVID, video, count).tokens, video).sum()
    assert count > salient >= count - int(0.4 * count) or count == 7


@pytest.mark.parametrize(("num_frames", "step", "anchors"), [(2, 4, [1]), (3, 2, [0, 2])])
def test_fastvid_by_loops(num_frames, step, anchors):
    """One segment; each anchor has two centres, and merges the rest of all frames into them."""
    video = draw(gaussian, num_frames, SIZE, 4)
    count = 3 * num_frames + 2 * len(anchors)  # three salient tokens a frame
    result = keep(FastVID, video, count, num_segments=1, segment_threshold=-1.0, anchor_step=step)
    attention = state(video).attention
    kept = [sorted(attention[f].topk(3).indices.tolist()) for f in range(num_frames)]
    rest = [(f, p) for f in range(num_frames) for p in range(SIZE) if p not in kept[f]]
    rows = {(f, p): video[f, p] for f in range(num_frames) for p in kept[f]}
    for anchor in anchors:
        own = [p for f, p in rest if f == anchor]
        chosen = [own[i] for i in peaks_by_loops(video[anchor, own].double(), 2, 4)[0]]
        members: dict = {p: [] for p in chosen}
        for f, p in rest:
            alike = [float(torch.cosine_similarity(video[f, p], video[anchor, q], dim=0)) for q in chosen]
            members[p if f == anchor and p in chosen else chosen[alike.index(max(alike))]].append(video[f, p])
        for p, joined in members.items():
            weight = max(0.6, 1 / (len(joined) + 1))
            rows[anchor, p] = weight * video[anchor, p] + (1 - weight) * torch.stack(joined).mean(0)
    torch.testing.assert_close(result.tokens, torch.stack([rows[place] for place in sorted(rows)]))


@pytest.mark.parametrize("count", [4, 15, 28, 50, 60])
def test_fastvid_counts_add_up(count):
    method = FastVID(retention_ratio=0.5, merged_ratio=0.9, anchor_step=3)
    for parts in ([(0, 7)], [(0, 1), (1, 5), (5, 7)]):
        shares = [count // 7 + (f < count % 7) for f in range(7)]
        salient, centres = method._shares(parts, shares, SIZE)
        assert sum(salient) + sum(centres) == count
        assert all(s + c <= SIZE for s, c in zip(salient, centres, strict=True))
        last = {stop - 1 - 3 * i for start, stop in parts for i in range(3) if stop - 1 - 3 * i >= start}
        assert {f for f in range(7) if centres[f]} <= last


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_frames", [1, 2, 5, 8])
def test_holitom_windows_save_the_most(num_frames, seed):
    generator = torch.Generator().manual_seed(seed)
    is_alike = torch.rand(num_frames - 1, 6, generator=generator) < 0.8

    def saved(windows):
        return sum(int(is_alike[a : b - 1].all(0).sum()) * (b - a - 1) for a, b in windows if b - a > 1)

    best = 0
    for cuts in itertools.product([False, True], repeat=num_frames - 1):
        edges = [0, *(f + 1 for f, is_cut in enumerate(cuts) if is_cut), num_frames]
        best = max(best, saved(list(itertools.pairwise(edges))))
    found = best_windows(is_alike)
    assert [edge for window in found for edge in window][1:-1:2] == [w[0] for w in found[1:]]
    assert (found[0][0], found[-1][1]) == (0, num_frames)
    assert saved(found) == best


def test_holitom_keeps_a_still_video_once_and_a_changing_one_by_attention():
    picture = draw(gaussian, 1, SIZE, 4)
    result = keep(HoliTom, picture.expand(4, SIZE, 4).clone(), SIZE)
    assert torch.equal(result.tokens, picture[0])
    assert result.sizes.tolist() == [4] * SIZE
    video = draw(gaussian, 4, SIZE, 4)
    stays = (keep(HoliTom, video, 12, static_threshold=1.0).component >= 0).view(4, SIZE)
    attention = state(video).attention
    for frame in range(4):
        assert stays[frame].sum() == 3
        assert attention[frame, stays[frame]].min() > attention[frame, ~stays[frame]].max()


def test_holitom_counts_static_places_once():
    video = torch.cat([draw(gaussian, 1, 4, 6).expand(3, 4, 6), draw(gaussian, 3, 5, 6)], dim=1)
    # 4 static rows and 3 * 5 dynamic ones: all of them
    result = keep(HoliTom, video, 19, static_threshold=0.99)
    assert sorted(result.sizes.tolist()) == [1] * 15 + [3] * 4
    assert is_row_of(result.tokens, video).sum() >= 15
    torch.testing.assert_close(result.tokens[:4], video[0, :4])
    few = keep(HoliTom, video, 8, static_threshold=0.99, merged_ratio=0.5)
    assert (few.frame_span.diff(dim=1)[:, 0] == 2).sum() == 2  # 8 * 4 / 19, rounded


def test_a_blend_is_of_the_centre_and_the_mean_of_the_others():
    rows = torch.tensor([[0.0], [3.0], [6.0], [100.0]])
    blended = blend(rows, torch.tensor([0, 3]), torch.tensor([0, 0, 0, 1]), 0.6)
    torch.testing.assert_close(blended, torch.tensor([[0.4 * 4.5], [100.0]]))


def test_unified_pool_by_loops():
    unit = directions(draw(gaussian, 3, SIZE, 3)).unit.flatten(0, 1)
    pool: list[int] = []
    for i in range(len(unit)):
        if len(pool) < 9 and all(float(unit[i].double() @ unit[j].double()) < 0.7 for j in pool):
            pool.append(i)
    assert pick_unlike(unit, 9, 0.7).tolist() == pool
    assert len(pool) > 1


def test_unified_keeps_the_pool_and_loses_nothing():
    video = draw(gaussian, 4, SIZE, 4)
    result = keep(Unified, video, 16)
    assert result.sizes.sum() == 4 * SIZE
    assert is_row_of(result.tokens, video).sum() >= 8
    most = state(video).attention.flatten().argmax()
    assert torch.equal(result.tokens[result.component[most]], video.flatten(0, 1)[most])
    means = torch.stack([video.flatten(0, 1)[result.component == row].mean(0) for row in range(16)])
    torch.testing.assert_close(result.tokens, means)


def test_unified_without_clusters_is_the_highest_attention():
    video = draw(gaussian, 4, SIZE, 4)
    result = keep(Unified, video, 10, pool_threshold=1.0, cluster_ratio=0.0)
    attention = state(video).attention.flatten()
    assert (result.component >= 0).nonzero().flatten().tolist() == attention.topk(
        10
    ).indices.sort().values.tolist()


def test_unified_with_a_pool_of_one():
    video = draw(gaussian, 4, SIZE, 4)
    result = keep(Unified, video, 10, pool_threshold=-1.0)
    assert result.sizes.sum() == 4 * SIZE
    alone = int(state(video).attention.argmax())
    assert result.sizes[result.component[alone]] == 1
