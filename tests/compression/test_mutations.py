"""The oracles can fail: each small mistake in the package is one that a comparison with them notices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from llava_scissor.compression import ScissorConfig, compress, merging, scissor, steps
from llava_scissor.compression.engines import Components, TiledEngine
from llava_scissor.compression.engines.tiled import edges
from tests.compression.checks import assert_agrees
from tests.compression.draws import chain, draw, gaussian, orthogonal, partition, with_zeros
from tests.reference.forest import kruskal_parts
from tests.reference.graph import similarities
from tests.reference.two_steps import compress as by_the_book

# Orthogonal tokens have similarity exactly tau; on the chain only neighbours are connected.
CASES = [(orthogonal, 0.0), (chain, 0.993), (gaussian, 0.8), (with_zeros, 0.5), (with_zeros, -0.5)]


def compare_compressor():
    for kind, tau in CASES:
        video = draw(kind, 3, 10, 4, seed=1)
        assert_agrees(compress(video, ScissorConfig(tau=tau)), by_the_book(video.numpy(), tau))


def compare_clusters():
    tokens = draw(gaussian, 1, 30, 4)
    engine, similarity = TiledEngine(ScissorConfig()), similarities(tokens[0])
    weights = {(i, j): similarity[i, j] for i in range(30) for j in range(i + 1, 30)}
    for count in (2, 5, 9):
        found, _ = engine.single_linkage(engine.vertices(tokens), count, 0.9, 0.95)
        assert partition(found.labels) == kruskal_parts(30, weights, count)


def first_members(tokens, labels, count):
    return torch.stack([tokens[labels == k][0] for k in range(count)]).float()


def weighted_by_all(tokens, labels, count):
    total, num_members = merging.sum_by_label(tokens, labels, count)
    return total / (num_members + 1)


def without_zeros(self, tokens, window=None):
    found = vertices(self, tokens, window)
    unit = replace(found.directions, is_zero=torch.zeros_like(found.directions.is_zero), has_zero=False)
    return replace(found, directions=unit)


def only_inside_frames(self, found, tau):
    return components(self, found, 2.0 if len(found.directions.is_zero) == 1 else tau)


def in_order_of_the_first_token(self, found, tau):
    labels = components(self, found, tau).labels.tolist()
    order = list(dict.fromkeys(labels))
    return Components(torch.tensor([order.index(label) for label in labels]), len(order))


def originals_only(tokens, assignment, representatives):
    total, num_members = merging.sum_by_label(tokens, assignment, len(representatives))
    return total / num_members.clamp(min=1)


vertices, components, nearest = TiledEngine.vertices, TiledEngine.components, TiledEngine.nearest
spanning = edges._spanning

COMPRESSOR_MISTAKES = {
    "an edge at tau": (
        TiledEngine,
        "components",
        lambda self, found, tau: components(self, found, tau - 1e-7),
    ),
    "components in order of their first token": (TiledEngine, "components", in_order_of_the_first_token),
    "frames are never connected": (TiledEngine, "components", only_inside_frames),
    "a zero token is a vertex like others": (TiledEngine, "vertices", without_zeros),
    "tokens join their own component": (
        TiledEngine,
        "nearest",
        lambda self, found, representatives, component: component,
    ),
    "tokens join the nearest of the first half": (
        TiledEngine,
        "nearest",
        lambda self, found, to, component: nearest(
            self, found, to[: (len(to) + 1) // 2], component % len(to)
        ),
    ),
    "spatial representatives are their first members": (steps, "mean_by_label", first_members),
    "temporal representatives are their first members": (scissor, "mean_by_label", first_members),
    "means divide by one too many": (scissor, "mean_by_label", weighted_by_all),
    "the representative is left out of the merge": (scissor, "merge", originals_only),
}

CLUSTER_MISTAKES = {
    "any edge between the same components": (
        edges,
        "_spanning",
        lambda u, v, size: spanning(u.flip(0), v.flip(0), size),
    ),
    "one join too few": (
        TiledEngine,
        "single_linkage",
        lambda self, found, count, low, high: clusters(self, found, count + 1, low, high),
    ),
}
clusters = TiledEngine.single_linkage


def test_without_a_mistake_all_agree():
    compare_compressor()
    compare_clusters()


@pytest.mark.parametrize("mistake", COMPRESSOR_MISTAKES)
def test_a_mistake_in_the_compressor_is_noticed(monkeypatch, mistake):
    monkeypatch.setattr(*COMPRESSOR_MISTAKES[mistake])
    with pytest.raises(AssertionError):
        compare_compressor()


@pytest.mark.parametrize("mistake", CLUSTER_MISTAKES)
def test_a_mistake_in_the_clusters_is_noticed(monkeypatch, mistake):
    monkeypatch.setattr(*CLUSTER_MISTAKES[mistake])
    with pytest.raises(AssertionError):
        compare_clusters()
