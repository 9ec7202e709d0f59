"""The oracles can fail: each small mistake in the package is one that a comparison with them notices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from llava_scissor.compression import (
    ScissorConfig,
    components,
    compress,
    linkage,
    links,
    merging,
    precision,
    scissor,
    similarity,
    steps,
)
from llava_scissor.compression.similarity import directions
from llava_scissor.compression.token_sets import TokenSets
from tests.compression.checks import assert_agrees
from tests.compression.draws import chain, draw, gaussian, one_set, orthogonal, partition, smooth, with_zeros
from tests.reference.forest import kruskal_parts
from tests.reference.two_steps import compress as by_the_book

# Orthogonal tokens have similarity exactly tau; on the chain only neighbours are linked.
CASES = [(orthogonal, 0.0), (chain, 0.993), (gaussian, 0.8), (with_zeros, 0.5), (with_zeros, -0.5)]


def compare_compressor():
    for kind, tau in CASES:
        video = draw(kind, 3, 10, 4, seed=1)
        assert_agrees(compress(video, ScissorConfig(tau=tau)), by_the_book(video.numpy(), tau))


def compare_merges():
    tokens = draw(gaussian, 1, 30, 4)[0]
    for sample in (None, {3, 11, 20}):
        sets = one_set(tokens, sample)
        u, v = torch.triu_indices(30, 30, 1)
        has_edge = torch.tensor(
            [
                sample is None or i in sample or j in sample
                for i, j in zip(u.tolist(), v.tolist(), strict=True)
            ]
        )
        u, v = u[has_edge], v[has_edge]
        pairs = zip(u.tolist(), v.tolist(), strict=True)
        weights = dict(zip(pairs, sets.similarity(u, v).tolist(), strict=True))
        for count in (2, 5, 9):
            labels = linkage.merge_strongest(sets, torch.arange(30), 30 - count, 1.0, 0.1)
            assert partition(labels) == kruskal_parts(30, weights, count)


def compare_links():
    for kind in (gaussian, smooth):
        tokens = draw(kind, 4, 12, 5)
        video = steps.Video(tokens, directions(tokens), ScissorConfig())
        before = video.spatial_step(components.connected_components(video.frames, 0.9))
        known = links.Links.above(before.sets, 0.5)
        for tau in (0.6, 0.8, 0.95):
            found = components.connected_components(video.frames, tau)
            taken_over, changes = video.spatial_step_after(before, found)
            updated = known.updated(taken_over.sets, changes.number, changes.is_new)
            expected = video.spatial_step(found).sets
            assert torch.equal(taken_over.sets.directions.coarse, expected.directions.coarse)
            for threshold in expected.similarity(
                *torch.triu_indices(*[expected.num_vertices] * 2, 1)
            ).tolist():
                if threshold >= 0.5:
                    labels = components.SimilarityGraph(taken_over.sets, threshold, updated).labels
                    assert partition(labels) == partition(
                        components.SimilarityGraph(expected, threshold).labels
                    )


def decide_at_tau(sets, tile, tau):
    return decide(sets, tile, tau - 1e-7)


def every_edge_twice(mask, dim):
    return 2 * count_ones(mask, dim)


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
    return replace(found, is_zero=torch.zeros_like(found.is_zero), has_zero=False)


def all_tokens_at_once(video):
    return TokenSets(directions(video.tokens.flatten(0, 1)[None]))


def only_inside_frames(sets, tau):
    is_temporal = len(sets.directions.is_zero) == 1
    return components.connected_components(sets, 2.0 if is_temporal else tau)


def originals_only(tokens, assignment, representatives):
    total, num_members = merging.sum_by_label(tokens, assignment, len(representatives))
    return total / num_members.clamp(min=1)


order = components.order_components
decide, count_ones = components._decide, components._count

COMPRESSOR_MISTAKES = {
    "an edge at tau": (components, "_decide", decide_at_tau),
    "open pairs are no edges": (components.SimilarityGraph, "_settle", lambda self, u, v: None),
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
        lambda tokens, representatives, component, block_size: component,
    ),
}

MERGE_MISTAKES = {
    "only what lies above the first guess is merged": (
        linkage,
        "_edges_above",
        lambda sets, tile, labels, low: above(sets, tile, labels, max(low, 0.0)),
    ),
    "pairs of two sampled tokens only": (
        TokenSets,
        "only_pairs",
        lambda self, mask, tile: (
            pairs_of(self, mask, tile)
            * (1 if self.sample is None else self._is_sampled[tile.sets, tile.column_range][:, None])
        ),
    ),
    "any edge between the same components": (
        linkage,
        "_spanning",
        lambda u, v, size: spanning(u.flip(0), v.flip(0), size),
    ),
}

LINK_MISTAKES = {
    "links of new representatives are left out": (
        links.Links,
        "updated",
        lambda self, sets, number, is_new: updated(self, sets, number, torch.zeros_like(is_new)),
    ),
    "links keep the numbers of their ends": (
        links.Links,
        "updated",
        lambda self, sets, number, is_new: updated(
            self,
            sets,
            torch.where(number < 0, -1, torch.arange(len(number)).clamp(max=len(is_new) - 1)),
            is_new,
        ),
    ),
    "pairs within the error of the end are not listed": (
        precision,
        "bracket",
        lambda tau, error, dtype: bracket(tau + (error if error > 1e-4 else 0), 0.0, dtype),
    ),
    "changed components keep their means": (
        similarity.Directions,
        "updated",
        lambda self, number, is_new, new: patched(
            self, number, is_new, replace(new, coarse=self.coarse.index_select(1, number[is_new]))
        ),
    ),
}
updated, bracket, patched = links.Links.updated, precision.bracket, similarity.Directions.updated
above, pairs_of, spanning = linkage._edges_above, TokenSets.only_pairs, linkage._spanning


def test_without_a_mistake_all_agree():
    compare_compressor()
    compare_merges()
    compare_links()


@pytest.mark.parametrize("mistake", COMPRESSOR_MISTAKES)
def test_a_mistake_in_the_compressor_is_noticed(monkeypatch, mistake):
    if mistake == "open pairs are no edges":
        monkeypatch.setattr(components, "FEW", 1)  # open pairs are many in so small videos
    monkeypatch.setattr(*COMPRESSOR_MISTAKES[mistake])
    with pytest.raises(AssertionError):
        compare_compressor()


@pytest.mark.parametrize("mistake", MERGE_MISTAKES)
def test_a_mistake_in_the_merges_is_noticed(monkeypatch, mistake):
    monkeypatch.setattr(*MERGE_MISTAKES[mistake])
    with pytest.raises(AssertionError):
        compare_merges()


@pytest.mark.parametrize("mistake", LINK_MISTAKES)
def test_a_mistake_in_the_links_is_noticed(monkeypatch, mistake):
    monkeypatch.setattr(*LINK_MISTAKES[mistake])
    with pytest.raises(AssertionError):
        compare_links()


@pytest.fixture(autouse=True)
def _lists_of_any_length(monkeypatch):
    monkeypatch.setattr(links, "FEW", 1)  # in small sets, many pairs are few
