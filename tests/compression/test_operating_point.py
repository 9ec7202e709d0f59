from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.compression import ScissorConfig, compress, operating_point
from llava_scissor.compression.operating_point import meet_budget
from llava_scissor.compression.similarity import directions
from llava_scissor.compression.steps import Video
from tests.compression.checks import assert_same_bytes, assert_well_formed
from tests.compression.draws import (
    KINDS,
    constant,
    draw,
    duplicates,
    gaussian,
    partition,
    ratio_of,
    smooth,
    videos,
)
from tests.reference.forest import kruskal_parts
from tests.reference.graph import labels_of, neighbours, similarities

RATIOS = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.99, 1.0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_the_budget_is_met(kind, ratio):
    video = draw(kind, 4, 25, 8)
    result = compress(video, ScissorConfig(retention_ratio=ratio))
    assert result.num_kept == max(1, math.floor(ratio * 100))
    assert_well_formed(result, video)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("search", [{}, {"sample_size": 1}, {"epsilon": 0.8}])
def test_every_number_of_tokens_can_be_asked_for(kind, search):
    video = draw(kind, 3, 4, 4)
    counts = [
        compress(video, ScissorConfig(retention_ratio=ratio_of(count, 12), **search)).num_kept
        for count in range(1, 13)
    ]
    assert counts == list(range(1, 13))


@given(videos(max_size=9, max_width=40), st.floats(0, 1, exclude_min=True), st.integers(1, 10))
def test_the_budget_is_met_by_a_sampled_search(video, ratio, sample_size):
    result = compress(video, ScissorConfig(retention_ratio=ratio, sample_size=sample_size))
    assert result.num_kept == max(1, math.floor(ratio * result.num_input))
    assert_well_formed(result, video)


@pytest.mark.parametrize("kind", [constant, duplicates, gaussian])
@pytest.mark.parametrize("entries", [20, 2**24])
def test_the_last_bit_of_a_product_does_not_matter(kind, entries):
    # The product of two tokens can depend on their order and on the block they are in.
    for width, seed in ((100, 0), (257, 1), (257, 2)):
        for frames, size in ((1, 4), (1, 9), (3, 5)):
            video = draw(kind, frames, size, width, seed)
            result = compress(video, ScissorConfig(retention_ratio=0.7, block_size=entries))
            assert result.num_kept == math.floor(0.7 * frames * size)


@given(
    videos(),
    st.floats(-1, 1) | st.sampled_from([-1.0, 0.0, 0.9, 1.0]),
    st.floats(0, 1, exclude_min=True),
    st.sampled_from([None, 1, 3]),
)
def test_both_keep_what_tau_keeps_but_not_more_than_the_budget(video, tau, ratio, sample_size):
    by_tau = compress(video, ScissorConfig(tau=tau, sample_size=sample_size))
    both = compress(video, ScissorConfig(tau=tau, retention_ratio=ratio, sample_size=sample_size))
    target = max(1, math.floor(ratio * by_tau.num_input))
    assert both.num_kept == min(by_tau.num_kept, target)
    assert both.tau <= tau
    assert_well_formed(both, video)
    if by_tau.num_kept <= target:
        assert_same_bytes(both, by_tau)


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.8])
@pytest.mark.parametrize("kind", [gaussian, smooth])
@pytest.mark.parametrize("frames", [6, 40])
def test_the_effective_tau_leaves_the_budget_or_little_more(kind, ratio, frames):
    video = draw(kind, frames, 36, 16)
    result = compress(video, ScissorConfig(retention_ratio=ratio))
    by_tau = compress(video, ScissorConfig(tau=result.tau))
    assert result.num_kept <= by_tau.num_kept <= (1 + operating_point.CLOSE_ENOUGH) * result.num_kept
    assert by_tau.num_spatial == result.num_spatial
    assert is_finer(by_tau.component, result.component)


def is_finer(fine, coarse):
    """Tell whether every part of one partition lies in one part of the other."""
    return all(any(part <= whole for whole in partition(coarse)) for part in partition(fine))


@pytest.mark.parametrize("kind", [gaussian, smooth])
@pytest.mark.parametrize("target", [1, 5, 20, 60, 71])
@pytest.mark.parametrize("limit", [None, 0.9])
def test_what_is_too_many_is_merged_along_the_strongest_links(kind, target, limit):
    tokens = draw(kind, 6, 12, 8)
    video = Video(tokens, directions(tokens), ScissorConfig())
    steps = meet_budget(video, target, limit)
    at_tau = video.two_steps(steps.tau)
    assert torch.equal(steps.spatial.components.labels, at_tau.spatial.components.labels)
    count = min(target, at_tau.temporal.count)
    size, sets = steps.spatial.components.count, steps.spatial.sets
    u, v = torch.triu_indices(size, size, 1)
    pairs = zip(u.tolist(), v.tolist(), strict=True)
    weights = dict(zip(pairs, sets.similarity(u, v).tolist(), strict=True))
    assert partition(steps.temporal.labels) == kruskal_parts(size, weights, count)
    assert limit is None or steps.tau <= limit


@pytest.mark.parametrize("ratio", [0.3, 0.8])
def test_a_budget_numbers_components_by_their_degrees_at_tau(ratio):
    video = draw(gaussian, 3, 20, 8)
    result = compress(video, ScissorConfig(retention_ratio=ratio))
    steps = Video(video, directions(video), ScissorConfig()).two_steps(result.tau)
    adjacency = neighbours(similarities(steps.spatial.representatives), result.tau)
    merged = partition(result.component[first_members(steps.spatial.components.labels)])
    ordered = sorted(merged, key=lambda part: max(part, key=lambda i: (len(adjacency[i]), -i)))
    expected = labels_of([sorted(part) for part in ordered])
    assert result.component.tolist() == torch.tensor(expected)[steps.spatial.components.labels].tolist()


def first_members(labels):
    return torch.tensor([(labels == k).nonzero()[0, 0] for k in range(int(labels.max()) + 1)])


def test_where_no_threshold_comes_close_the_lowest_that_leaves_enough_is_taken():
    orthogonal = torch.eye(12).view(3, 4, 12)  # 12 tokens at tau 0, one below
    for count in (2, 4, 9):
        result = compress(orthogonal, ScissorConfig(retention_ratio=ratio_of(count, 12)))
        assert 0 <= result.tau < 0.01
        assert result.num_kept == count
        assert result.num_spatial == 12
    assert compress(torch.ones(3, 4, 5), ScissorConfig(retention_ratio=0.5)).tau == 1


def test_a_single_token_meets_every_budget():
    for config in (ScissorConfig(retention_ratio=0.01), ScissorConfig(retention_ratio=0.01, tau=0.5)):
        result = compress(torch.ones(1, 1, 2), config)
        assert result.num_kept == 1
        assert torch.equal(result.tokens, torch.ones(1, 2))
