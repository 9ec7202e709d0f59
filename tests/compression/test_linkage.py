from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.compression import linkage
from llava_scissor.compression.components import SimilarityGraph
from llava_scissor.compression.linkage import merge_strongest
from llava_scissor.compression.similarity import directions
from llava_scissor.compression.token_sets import TokenSets
from tests.compression.draws import (
    KINDS,
    constant,
    draw,
    duplicates,
    gaussian,
    on_circle,
    one_set,
    partition,
    ties,
    videos,
)
from tests.reference.forest import kruskal_parts


def merged(sets, tau, count, depth=0.01):
    """The components at `tau`, merged to `count` ones."""
    graph = SimilarityGraph(sets, tau)
    return merge_strongest(sets, graph.labels, graph.count - count, tau, depth)


def weights(sets, sampled=None):
    """The defined similarity of every pair of the only set that has an edge."""
    size = sets.num_vertices
    u, v = torch.triu_indices(size, size, 1)
    values = sets.similarity(u, v).double().tolist()
    return {
        (i, j): value
        for i, j, value in zip(u.tolist(), v.tolist(), values, strict=True)
        if sampled is None or i in sampled or j in sampled
    }


@pytest.mark.parametrize("depth", [1e-4, 0.01, 5.0])
@given(videos(max_frames=1, max_size=16), st.floats(-1, 1), st.data())
def test_merges_are_those_of_kruskal(depth, video, tau, data):
    sets = one_set(video[0])
    size = len(video[0])
    top = len(partition(SimilarityGraph(sets, tau).labels))
    count = data.draw(st.integers(1, top))
    assert partition(merged(sets, tau, count, depth)) == kruskal_parts(size, weights(sets), count)


@given(videos(max_frames=1, max_size=14), st.floats(-1, 1), st.data())
def test_a_sampled_search_merges_along_edges_with_a_sampled_end(video, tau, data):
    tokens = video[0]
    sample = data.draw(st.sets(st.integers(0, len(tokens) - 1), min_size=1))
    sets = one_set(tokens, sample)
    count = data.draw(st.integers(1, len(partition(SimilarityGraph(sets, tau).labels))))
    expected = kruskal_parts(len(tokens), weights(sets, sample), count)
    assert partition(merged(sets, tau, count)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_can_be_reached_and_each_refines_the_next(kind):
    sets = one_set(draw(kind, 1, 24, 5)[0])
    found = [partition(merged(sets, 1.0, count)) for count in range(1, 25)]
    assert [len(parts) for parts in found] == list(range(1, 25))
    for coarse, fine in itertools.pairwise(found):
        assert all(any(part <= whole for whole in coarse) for part in fine)


@pytest.mark.parametrize("kind", [gaussian, ties, constant])
def test_several_sets_are_merged_each_in_itself(kind):
    sets = TokenSets(directions(draw(kind, 3, 7, 5)))
    assert partition(merged(sets, 1.0, 3)) == {frozenset(range(b * 7, b * 7 + 7)) for b in range(3)}


def test_equal_weights_are_taken_in_the_order_of_their_vertices():
    assert partition(merged(one_set(torch.eye(5)), 0.5, 3)) == {
        frozenset([0, 1, 2]),
        frozenset([3]),
        frozenset([4]),
    }


@pytest.mark.parametrize("kind", [gaussian, ties, duplicates, constant])
@pytest.mark.parametrize("entries", [1, 16, 40, 300])
@pytest.mark.parametrize("few", [1, 10**9])
def test_neither_blocks_nor_tiers_change_anything(monkeypatch, kind, entries, few):
    unit = directions(draw(kind, 1, 16, 4))
    expected = partition(merged(TokenSets(unit), 1.0, 4))
    monkeypatch.setattr(linkage, "FEW", few)
    for sample in (None, torch.arange(16)[None]):
        assert partition(merged(TokenSets(unit, sample, entries), 1.0, 4)) == expected


def test_a_chain_of_a_thousand():
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    angles = order * 0.003 + (order >= 400) * 0.002 + (order >= 700) * 0.001  # two wider gaps
    parts = partition(merged(one_set(on_circle(angles)), 1.0, 3))
    expected = [order < 400, (order >= 400) & (order < 700), order >= 700]
    assert parts == {frozenset(part.nonzero()[:, 0].tolist()) for part in expected}


@pytest.mark.parametrize("shape", [(1, 1), (4, 1)])
def test_single_vertices_have_no_edges(shape):
    sets = TokenSets(directions(torch.ones(*shape, 3)))
    assert merged(sets, -1.0, shape[0]).tolist() == list(range(shape[0]))
