from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.compression.engines.tiled import tuning
from llava_scissor.compression.engines.tiled.graph import single_linkage
from llava_scissor.compression.engines.tiled.similarity import directions
from llava_scissor.compression.engines.tiled.tiles import TokenSets
from tests.compression.draws import (
    KINDS,
    constant,
    draw,
    duplicates,
    gaussian,
    on_circle,
    one_set,
    partition,
    similarity,
    ties,
    videos,
)
from tests.reference.forest import kruskal_parts


def merged(sets, count, low=0.9, high=1.0):
    """The labels of `count` clusters."""
    return single_linkage(sets, count, low, high)[0].labels


def weights(sets, sampled=None):
    """The defined similarity of every pair of the only set that has an edge."""
    size = sets.num_vertices
    u, v = torch.triu_indices(size, size, 1)
    values = similarity(sets, u, v).double().tolist()
    return {
        (i, j): value
        for i, j, value in zip(u.tolist(), v.tolist(), values, strict=True)
        if sampled is None or i in sampled or j in sampled
    }


def ranges():
    """Where the last join is expected, rightly or wrongly."""
    return st.tuples(st.floats(-1.1, 0.999), st.floats(0, 0.5)).map(lambda t: (t[0], min(t[0] + t[1], 1.0)))


@given(videos(max_frames=1, max_size=16), ranges(), st.data())
def test_clusters_are_those_of_kruskal(video, bounds, data):
    sets = one_set(video[0])
    size = len(video[0])
    count = data.draw(st.integers(1, size))
    found, height = single_linkage(sets, count, *bounds)
    assert partition(found.labels) == kruskal_parts(size, weights(sets), count)
    assert found.count == count
    # The height is the weight of the last edge taken, or `high` if that is above it.
    top = len(kruskal_above(size, weights(sets), bounds[1]))
    if count < min(size, top):
        before = kruskal_parts(size, weights(sets), count + 1)
        joined = kruskal_parts(size, weights(sets), count) - before
        assert height in [w for (i, j), w in weights(sets).items() if any({i, j} <= part for part in joined)]
    elif count == top:
        assert height == bounds[1]


def kruskal_above(size, edges, tau):
    above = {pair: weight for pair, weight in edges.items() if weight > tau}
    return kruskal_parts(size, above, 0)


@given(videos(max_frames=1, max_size=14), ranges(), st.data())
def test_a_sampled_search_joins_along_edges_with_a_sampled_end(video, bounds, data):
    tokens = video[0]
    sample = data.draw(st.sets(st.integers(0, len(tokens) - 1), min_size=1))
    sets = one_set(tokens, sample)
    count = data.draw(st.integers(1, len(tokens)))
    expected = kruskal_parts(len(tokens), weights(sets, sample), count)
    assert partition(merged(sets, count, *bounds)) == expected


@given(videos(max_frames=1, max_size=12), ranges(), st.data())
def test_clusters_are_numbered_by_the_vertex_with_most_edges_above_the_upper_bound(video, bounds, data):
    sets, size = one_set(video[0]), video.shape[1]
    count = data.draw(st.integers(1, size))
    found, _ = single_linkage(sets, count, *bounds)
    degree = [sum(i in pair and w > bounds[1] for pair, w in weights(sets).items()) for i in range(size)]
    leaders = [
        max((i for i in range(size) if found.labels[i] == k), key=lambda i: (degree[i], -i))
        for k in range(count)
    ]
    assert leaders == sorted(leaders)


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_can_be_reached_and_each_refines_the_next(kind):
    sets = one_set(draw(kind, 1, 24, 5)[0])
    found = [partition(merged(sets, count)) for count in range(1, 25)]
    assert [len(parts) for parts in found] == list(range(1, 25))
    for coarse, fine in itertools.pairwise(found):
        assert all(any(part <= whole for whole in coarse) for part in fine)


@pytest.mark.parametrize("kind", [gaussian, ties, constant])
def test_several_sets_are_merged_each_in_itself(kind):
    sets = TokenSets(directions(draw(kind, 3, 7, 5)))
    assert partition(merged(sets, 3)) == {frozenset(range(b * 7, b * 7 + 7)) for b in range(3)}


def test_equal_weights_are_taken_in_the_order_of_their_vertices():
    assert partition(merged(one_set(torch.eye(5)), 3)) == {
        frozenset([0, 1, 2]),
        frozenset([3]),
        frozenset([4]),
    }


@pytest.mark.parametrize("kind", [gaussian, ties, duplicates, constant])
@pytest.mark.parametrize("entries", [1, 16, 40, 300])
@pytest.mark.parametrize("sizes", [{"few": 1}, {"few": 10**9}, {"few_pairs": 0}, {"many_pairs": 4, "few": 1}])
def test_neither_blocks_nor_sizes_change_anything(monkeypatch, kind, entries, sizes):
    unit = directions(draw(kind, 1, 16, 4))
    expected = partition(merged(TokenSets(unit), 4))
    monkeypatch.setattr(tuning, "CPU", replace(tuning.CPU, **sizes))
    for sample in (None, torch.arange(16)[None]):
        assert partition(merged(TokenSets(unit, sample, entries), 4)) == expected


def test_a_chain_of_a_thousand():
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    angles = order * 0.003 + (order >= 400) * 0.002 + (order >= 700) * 0.001  # two wider gaps
    parts = partition(merged(one_set(on_circle(angles)), 3))
    expected = [order < 400, (order >= 400) & (order < 700), order >= 700]
    assert parts == {frozenset(part.nonzero()[:, 0].tolist()) for part in expected}


@pytest.mark.parametrize("shape", [(1, 1), (4, 1)])
def test_single_vertices_have_no_edges(shape):
    sets = TokenSets(directions(torch.ones(*shape, 3)))
    assert merged(sets, shape[0]).tolist() == list(range(shape[0]))
