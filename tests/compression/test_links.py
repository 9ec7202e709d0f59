"""Pairs listed once lead to the same graphs as all similarities, and so does what is taken over."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.compression import ScissorConfig, links, operating_point
from llava_scissor.compression.components import SimilarityGraph, connected_components
from llava_scissor.compression.linkage import merge_strongest
from llava_scissor.compression.links import Links
from llava_scissor.compression.similarity import Directions, directions
from llava_scissor.compression.steps import Video
from llava_scissor.compression.token_sets import TokenSets
from tests.compression.draws import KINDS, draw, gaussian, partition, smooth, videos

SAMPLES = [None, [[1, 4], [0, 7], [2, 3]]]


@pytest.fixture(autouse=True)
def _lists_of_any_length(monkeypatch):
    monkeypatch.setattr(links, "FEW", 1)  # in small sets, many pairs are few


def sets_of(kind, sample=None, **options):
    return TokenSets(directions(draw(kind, 3, 8, 6)), sample and torch.tensor(sample), **options)


def looked_at(sets):
    """All pairs that an edge may join."""
    num_sets, size = sets.directions.is_zero.shape
    vertex = torch.arange(num_sets * size)
    u, v = torch.triu_indices(len(vertex), len(vertex), 1)
    is_pair = u // size == v // size
    if sets.sample is not None:
        is_sampled = torch.zeros(num_sets, size, dtype=torch.bool).scatter_(1, sets.sample, True).flatten()
        is_pair &= is_sampled[u] | is_sampled[v]
    return u[is_pair], v[is_pair]


def listed(found):
    low, high = torch.minimum(found.u, found.v), torch.maximum(found.u, found.v)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def assert_same_graph(found, expected):
    found, expected = found.components(), expected.components()
    assert torch.equal(found.labels, expected.labels)
    assert found.count == expected.count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("low", [-1.0, -0.2, 0.5, 0.95])
def test_every_pair_above_is_listed_once_with_about_its_similarity(kind, sample, low):
    sets = sets_of(kind, sample, block_size=30)
    found = Links.above(sets, low)
    u, v = looked_at(sets)
    above = sets.similarity(u, v).double() > low
    pairs = listed(found)
    assert len(set(pairs)) == len(pairs)
    assert set(zip(u[above].tolist(), v[above].tolist(), strict=True)) <= set(pairs)
    assert ((found.rough.clamp(max=1) - sets.similarity(found.u, found.v)).abs() <= found.error).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_listed_pairs_lead_to_the_same_graph_at_any_threshold_above(kind, sample):
    sets = sets_of(kind, sample)
    for low in (-1.0, 0.3):
        found = Links.above(sets, low)
        for tau in [*sets.similarity(*looked_at(sets)).unique()[::5].tolist(), low, 0.99]:
            if tau >= low:
                assert_same_graph(SimilarityGraph(sets, tau, found), SimilarityGraph(sets, tau))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_listed_pairs_lead_to_the_same_merges(kind, sample):
    sets = sets_of(kind, sample)
    graph = SimilarityGraph(sets, 0.9)
    for low in (-1.0, 0.6, 0.85):
        for count in range(3, graph.count):
            plain = merge_strongest(sets, graph.labels, graph.count - count, 0.9, 0.02)
            merged = merge_strongest(
                sets, graph.labels, graph.count - count, 0.9, 0.02, Links.above(sets, low)
            )
            assert partition(merged) == partition(plain)


def test_too_many_pairs_are_not_listed(monkeypatch):
    monkeypatch.setattr(links, "FEW", 16)
    assert Links.above(sets_of(gaussian), -0.5) is None
    assert Links.above(sets_of(gaussian), 0.99) is not None
    monkeypatch.setattr(links, "FEW", 1)
    monkeypatch.setattr(links, "MANY_LINKS", 20)
    assert Links.above(sets_of(gaussian, block_size=10), -0.5) is None


def steps_at(video, before, tau):
    first = video.spatial_step(connected_components(video.frames, before))
    components = connected_components(video.frames, tau)
    return first, *video.spatial_step_after(first, components), video.spatial_step(components)


def assert_same_vectors(found: Directions, expected: Directions):
    for name in ("tokens", "norm", "coarse", "is_zero", "unit"):
        assert torch.equal(getattr(found, name)[:], getattr(expected, name)[:]), name
    assert (found.has_zero, found.is_scaled) == (expected.has_zero, expected.is_scaled)


@given(videos(kinds=[gaussian, smooth]), st.floats(-1, 1), st.floats(-1, 1), st.sampled_from([None, 2]))
def test_what_is_taken_over_is_what_would_be_computed(tokens, before, tau, window):
    video = Video(tokens, directions(tokens), ScissorConfig(temporal_window=window))
    first, found, changes, expected = steps_at(video, before, tau)
    assert torch.equal(found.components.labels, expected.components.labels)
    assert torch.equal(found.representatives[:], expected.representatives[:])
    assert_same_vectors(found.sets.directions, expected.sets.directions)
    assert window is None or torch.equal(found.sets.window, expected.sets.window)
    parts, other = (list_of_parts(step.components.labels) for step in (first, found))
    assert [part in parts for part in other] == (~changes.is_new).tolist()
    assert [other.index(part) if part in other else -1 for part in parts] == changes.number.tolist()
    for low in (-1.0, 0.4):
        updated = Links.above(first.sets, low).updated(found.sets, changes.number, changes.is_new)
        assert set(listed(updated)) >= set(listed(Links.above(found.sets, low)))
        assert len(set(listed(updated))) == len(updated.u)
        for threshold in (max(tau, low), 0.9):
            assert_same_graph(
                SimilarityGraph(found.sets, threshold, updated), SimilarityGraph(expected.sets, threshold)
            )


def list_of_parts(labels):
    return [(labels == k).nonzero()[:, 0].tolist() for k in range(int(labels.max()) + 1)]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tokens_out_of_range_are_not_taken_over(scale):
    tokens = scale * draw(gaussian, 3, 9, 5)
    video = Video(tokens, directions(tokens), ScissorConfig())
    trial = operating_point._Trial.at(video, 0.5, 0.0)
    assert trial.links is not None
    assert trial.spatial.sets.directions.is_scaled
    assert not trial.can_be_taken_over(0.4, 0.0, 9)
    plain = operating_point._Trial.at(
        Video(tokens / scale, directions(tokens / scale), ScissorConfig()), 0.5, 0.0
    )
    assert plain.can_be_taken_over(0.4, 0.0, 9)
    assert not plain.can_be_taken_over(-0.1, -0.5, 9)
    later = operating_point._Trial.at(video, 0.4, 0.0, trial)
    assert later.count == operating_point._Trial.at(video, 0.4, 0.0).count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sample_size", [None, 3])
@pytest.mark.parametrize("tau", [0.9, 0.6, 0.5, 0.2, -0.3])  # 0.5 is where the list ends
def test_pairs_of_frames_that_were_listed_lead_to_the_same_components(kind, sample_size, tau):
    tokens = draw(kind, 3, 9, 5)
    video = Video(tokens, directions(tokens), ScissorConfig(sample_size=sample_size))
    first = operating_point._Trial.at(video, 0.8, 0.5)
    second = operating_point._Trial.at(video, tau, tau - 0.2, first)
    for trial in (first, second):
        expected = connected_components(video.frames, trial.tau)
        assert torch.equal(trial.spatial.components.labels, expected.labels)


@pytest.mark.parametrize(("kind", "is_listed"), [(gaussian, True), (smooth, False)])
def test_frames_with_too_many_pairs_are_looked_at_anew(monkeypatch, kind, is_listed):
    monkeypatch.setattr(links, "FEW", 16)
    tokens = draw(kind, 4, 25, 64)
    video = Video(tokens, directions(tokens), ScissorConfig())
    first = operating_point._Trial.at(video, 0.9, 0.5)
    assert (first.in_frames is not None) == is_listed
    assert operating_point._Trial.at(video, 0.8, 0.5, first).count == video.count(0.8)


@pytest.mark.parametrize(
    ("options", "size", "expected"),
    [
        ({}, 10**6, True),
        ({"epsilon": 0.05}, 3233, True),
        ({"epsilon": 0.05}, 3234, False),
        ({"sample_size": 9}, 9, True),
        ({"sample_size": 9}, 10, False),
    ],
)
def test_a_search_is_exact_where_the_sample_is_everything(options, size, expected):
    tokens = draw(gaussian, 2, 3, 4)
    assert Video(tokens, directions(tokens), ScissorConfig(**options)).is_exact(size) == expected


def test_nothing_is_taken_over_where_the_representatives_are_sampled():
    tokens = draw(gaussian, 3, 9, 5)
    video = Video(tokens, directions(tokens), ScissorConfig(sample_size=27))
    trial = operating_point._Trial.at(video, 0.5, 0.0)
    assert trial.can_be_taken_over(0.4, 0.0, 27)
    assert not trial.can_be_taken_over(0.4, 0.0, 28)
