"""The oracles can fail: each small mistake in the package is one that a comparison with them notices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llava_scissor.compression import (
    ScissorConfig,
    components,
    compress,
    linkage,
    merging,
    operating_point,
    scissor,
    similarity,
    steps,
)
from llava_scissor.compression.linkage import maximum_spanning_forest
from llava_scissor.compression.similarity import Directions, TokenSets
from tests.compression.checks import assert_agrees
from tests.compression.draws import chain, draw, duplicates, gaussian, one_set, orthogonal, with_zeros
from tests.reference.forest import kruskal
from tests.reference.graph import similarities
from tests.reference.two_steps import compress as by_the_book

# Orthogonal tokens have similarity exactly tau; on the chain only neighbours are linked.
CASES = [(orthogonal, 0.0), (chain, 0.993), (gaussian, 0.8), (with_zeros, 0.5), (with_zeros, -0.5)]


def compare_compressor():
    for kind, tau in CASES:
        video = draw(kind, 3, 10, 4, seed=1)
        assert_agrees(compress(video, ScissorConfig(tau=tau)), by_the_book(video.numpy(), tau))


def compare_forest():
    tokens, sample = draw(gaussian, 1, 30, 4)[0], {3, 11, 20}
    for chosen in (None, sample):
        forest = maximum_spanning_forest(one_set(tokens, chosen))
        np.testing.assert_allclose(forest.weight, kruskal(similarities(tokens), chosen), atol=1e-6)


def compare_budget():
    for seed in range(5):
        for size in (4, 9):
            result = compress(draw(duplicates, 1, size, 257, seed), ScissorConfig(retention_ratio=0.7))
            assert result.num_kept == int(0.7 * size)


def links_at_tau(block, tau):
    linked = block.values >= tau
    return linked.scatter_(2, (block.rows - block.columns[:, :1])[..., None], False)


def label_one_round(num_vertices, u, v, engine=None):
    """Forget what is more than one edge away from a component's root."""
    return torch.arange(num_vertices).scatter_reduce(0, u, v, "amin").scatter_reduce(0, v, u, "amin")


def first_members(tokens, labels, count):
    return torch.stack([tokens[labels == k][0] for k in range(count)]).float()


def weighted_by_all(tokens, labels, count):
    total, num_members = merging.sum_by_label(tokens, labels, count)
    return total / (num_members + 1)


def without_zeros(tokens):
    found = similarity.directions(tokens)
    return Directions(found.unit, torch.zeros_like(found.is_zero), False)


def all_tokens_at_once(video):
    unit = video.flat_directions
    return TokenSets(Directions(unit.unit[None], unit.is_zero[None], unit.has_zero))


def only_inside_frames(sets, tau):
    is_temporal = len(sets.directions.is_zero) == 1
    return components.connected_components(sets, 2.0 if is_temporal else tau)


def originals_only(tokens, assignment, representatives):
    total, num_members = merging.sum_by_label(tokens, assignment, len(representatives))
    return total / num_members.clamp(min=1)


def search_again(video, frames, target, tau):
    """Find the spatial components by a second search at tau, as if similarities never differed in a bit."""
    found = video.spatial_step(components.connected_components(video.frames, tau))
    forest = maximum_spanning_forest(found.sets)
    excess = forest.num_components(tau) / target - 1
    return operating_point._Trial(tau, found, forest, forest.threshold(target, tau), excess)


order = components.order_components
sort = linkage._sorted_forest

COMPRESSOR_MISTAKES = {
    "an edge at tau": (components, "_links", links_at_tau),
    "deep members of a chain are lost": (components, "label_edges", label_one_round),
    "components in order of their first token": (
        components,
        "order_components",
        lambda labels, degree: order(labels, torch.zeros_like(degree)),
    ),
    "a zero token is a vertex like others": (steps, "directions", without_zeros),
    "zero tokens attract": (scissor, "directions", without_zeros),
    "spatial representatives are their first members": (steps, "mean_by_label", first_members),
    "temporal representatives are their first members": (scissor, "mean_by_label", first_members),
    "means divide by one too many": (scissor, "mean_by_label", weighted_by_all),
    "frames are linked in the spatial step": (steps.Video, "frames", property(all_tokens_at_once)),
    "frames are never linked": (steps, "connected_components", only_inside_frames),
    "the representative is left out of the merge": (scissor, "merge", originals_only),
    "tokens join their own component": (
        scissor,
        "assign_to_nearest",
        lambda tokens, representatives, component: component,
    ),
}

FOREST_MISTAKES = {
    "an edge is never looked for again": (
        linkage._Strongest,
        "forget",
        lambda self, labels, everything: self.neighbour < 0,
    ),
    "only sampled tokens have edges": (linkage, "_transposed", lambda block: block),
    "the weakest edges first": (
        linkage,
        "_sorted_forest",
        lambda edges, labels: sort([(key, -weight) for key, weight in edges], labels),
    ),
}


def test_without_a_mistake_all_agree():
    compare_compressor()
    compare_forest()
    compare_budget()


@pytest.mark.parametrize("mistake", COMPRESSOR_MISTAKES)
def test_a_mistake_in_the_compressor_is_noticed(monkeypatch, mistake):
    monkeypatch.setattr(*COMPRESSOR_MISTAKES[mistake])
    with pytest.raises(AssertionError):
        compare_compressor()


@pytest.mark.parametrize("mistake", FOREST_MISTAKES)
def test_a_mistake_in_the_forest_is_noticed(monkeypatch, mistake):
    monkeypatch.setattr(*FOREST_MISTAKES[mistake])
    with pytest.raises(AssertionError):
        compare_forest()


def test_a_budget_that_is_searched_again_is_missed(monkeypatch):
    monkeypatch.setattr(operating_point, "_try", search_again)
    with pytest.raises((AssertionError, IndexError)):
        compare_budget()
