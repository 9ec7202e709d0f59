from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from llava_scissor.compression import similarity
from llava_scissor.compression.components import connected_components
from llava_scissor.compression.linkage import maximum_spanning_forest
from llava_scissor.compression.similarity import TokenSets, directions
from tests.compression.draws import (
    KINDS,
    ROUNDING,
    constant,
    draw,
    duplicates,
    gaussian,
    on_circle,
    one_set,
    partition,
    smooth,
    ties,
    videos,
    zeros,
)
from tests.reference.forest import kruskal, single_linkage_count
from tests.reference.graph import similarities


def refines(fine, coarse):
    """Tell whether every part of one partition lies in one part of the other."""
    return all(any(part <= whole for whole in partition(coarse)) for part in partition(fine))


def assert_spanning_tree(forest, tokens, sample=None):
    similarity_of = similarities(tokens)
    assert forest.num_vertices == len(tokens)
    assert (forest.u < forest.v).all()
    assert (forest.weight.diff() <= 0).all()
    np.testing.assert_allclose(forest.weight, similarity_of[forest.u, forest.v], atol=1e-6)
    np.testing.assert_allclose(forest.weight, kruskal(similarity_of, sample), atol=1e-6)
    assert len(partition(forest.cut(1))) == 1


@given(videos(max_frames=1, max_size=20))
def test_the_tree_is_that_of_kruskal(video):
    assert_spanning_tree(maximum_spanning_forest(one_set(video[0])), video[0])


@given(videos(max_frames=1, max_size=14), st.data())
def test_a_sampled_tree_has_a_sampled_end_on_every_edge(video, data):
    tokens = video[0]
    sample = data.draw(st.sets(st.integers(0, len(tokens) - 1), min_size=1))
    forest = maximum_spanning_forest(one_set(tokens, sample))
    assert all(u in sample or v in sample for u, v in zip(forest.u.tolist(), forest.v.tolist(), strict=True))
    assert_spanning_tree(forest, tokens, sample)


@pytest.mark.parametrize("sample", [None, [[0, 5], [2, 6], [3, 4]]])
@pytest.mark.parametrize("kind", [gaussian, ties, constant])
def test_several_sets_have_a_tree_each(kind, sample):
    video = draw(kind, 3, 7, 5)
    forest = maximum_spanning_forest(
        TokenSets(directions(video), None if sample is None else torch.tensor(sample))
    )
    assert forest.num_vertices == 21
    assert forest.weight.numel() == 18
    assert (forest.u // 7 == forest.v // 7).all()
    for b, tokens in enumerate(video):
        weights = forest.weight[forest.u // 7 == b]
        chosen = None if sample is None else set(sample[b])
        np.testing.assert_allclose(weights, kruskal(similarities(tokens), chosen), atol=1e-6)
    assert partition(forest.cut(3)) == {frozenset(range(b * 7, b * 7 + 7)) for b in range(3)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_leaves_as_many_components_as_asked(kind):
    tokens = draw(kind, 1, 24, 5)[0]
    forest = maximum_spanning_forest(one_set(tokens))
    cuts = [forest.cut(count) for count in range(1, 25)]
    assert [len(partition(labels)) for labels in cuts] == list(range(1, 25))
    assert all(refines(fine, coarse) for coarse, fine in itertools.pairwise(cuts))


@pytest.mark.parametrize("kind", [gaussian, smooth])
@pytest.mark.parametrize("near", [-1.0, 0.3, 0.9, 1.0])
def test_the_threshold_of_a_cut_leads_to_the_same_components(kind, near):
    sets = one_set(draw(kind, 1, 15, 5)[0])
    forest = maximum_spanning_forest(sets)
    assert forest.weight.diff().max() < -ROUNDING
    for count in range(1, 16):
        tau = forest.threshold(count, near)
        assert forest.num_components(tau) == count
        # An edge whose weight is the threshold may come out a bit stronger from its other end.
        found = connected_components(sets, tau + (3e-7 if tau in forest.weight.tolist() else 0))
        assert partition(found.labels) == partition(forest.cut(count))
        if forest.num_components(near) == count:
            assert tau == near


def test_the_threshold_between_equal_weights_is_theirs():
    forest = maximum_spanning_forest(one_set(torch.eye(4)))  # all similarities are 0
    assert [forest.threshold(count, 0.5) for count in (1, 2, 3, 4)] == [pytest.approx(-1e-6), 0.0, 0.0, 0.5]
    assert forest.threshold(4, -0.5) == 0.0
    assert forest.threshold(1, -0.5) == -0.5


def test_equal_weights_are_ordered_by_vertices():
    forest = maximum_spanning_forest(one_set(torch.eye(5)))
    assert forest.u.tolist() == [0, 0, 0, 0]
    assert forest.v.tolist() == [1, 2, 3, 4]
    assert forest.cut(3).tolist() == [0, 0, 0, 1, 2]


@given(videos(max_frames=1, max_size=20), st.floats(-1, 1))
def test_counts_at_every_threshold_are_those_of_single_linkage(video, tau):
    similarity_of = similarities(video[0])
    assume((abs(similarity_of - tau) > ROUNDING).all())
    forest = maximum_spanning_forest(one_set(video[0]))
    assert forest.num_components(tau) == single_linkage_count(similarity_of, tau)


@pytest.mark.parametrize("kind", [gaussian, ties, duplicates, zeros])
@pytest.mark.parametrize("entries", [1, 30, 75, 300])
@pytest.mark.parametrize("num_kept", [0, 8])
def test_blocks_do_not_change_the_weights(monkeypatch, kind, entries, num_kept):
    video = draw(kind, 2, 15, 4)
    expected = maximum_spanning_forest(TokenSets(directions(video))).weight
    monkeypatch.setattr(similarity, "BLOCK_ENTRIES", entries)
    monkeypatch.setattr(similarity, "KEPT_BLOCKS", num_kept)
    for sample in (None, torch.arange(15).expand(2, 15)):
        forest = maximum_spanning_forest(TokenSets(directions(video), sample))
        torch.testing.assert_close(forest.weight, expected, rtol=0, atol=1e-6)
        assert len(partition(forest.cut(2))) == 2


def test_a_chain_of_a_thousand():
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    forest = maximum_spanning_forest(one_set(on_circle(order * 0.003)))
    # Only neighbours on the circle are this similar, so the tree is the chain itself.
    assert ((order[forest.u] - order[forest.v]).abs() == 1).all()
    assert forest.weight.min() > np.cos(0.003) - 1e-6
    assert len(partition(forest.cut(1))) == 1


@pytest.mark.parametrize("shape", [(1, 1), (4, 1)])
def test_single_vertices_have_no_edges(shape):
    forest = maximum_spanning_forest(TokenSets(directions(torch.ones(*shape, 3))))
    assert forest.weight.numel() == 0
    assert forest.cut(shape[0]).tolist() == list(range(shape[0]))
    assert forest.threshold(shape[0], 0.7) == 0.7
