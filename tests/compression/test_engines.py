"""What every engine promises, against the oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage

from llava_scissor.compression import ScissorConfig
from llava_scissor.compression.engines import ENGINES
from llava_scissor.errors import InputError
from tests.compression.draws import KINDS, ROUNDING, draw, gaussian, partition, smooth, videos
from tests.reference import two_steps
from tests.reference.forest import kruskal_parts
from tests.reference.graph import components, labels_of, neighbours, similarities

every_engine = pytest.mark.parametrize("name", ENGINES)
TAUS = st.floats(-1, 1)


def build(name, **settings):
    return ENGINES[name](ScissorConfig(**settings))


def in_windows(tokens, windows):
    similarity = similarities(tokens)
    similarity[np.not_equal.outer(windows, windows)] = -1
    return similarity


@every_engine
def test_an_engine_has_its_name_and_runs_on_a_cpu(name):
    assert ENGINES[name].name == name
    ENGINES[name].assert_supported(torch.device("cpu"))


@every_engine
@given(videos(max_frames=1, max_size=14), TAUS, st.data())
def test_components_of_one_set_in_windows(name, video, tau, data):
    windows = data.draw(st.lists(st.integers(0, 2), min_size=video.shape[1], max_size=video.shape[1]))
    similarity = in_windows(video[0], windows)
    assume((abs(similarity - tau) > ROUNDING).all())
    engine = build(name)
    vertices = engine.vertices(video, torch.tensor(windows)[None])
    found = engine.components(vertices, tau)
    assert found.labels.tolist() == labels_of(components(neighbours(similarity, tau)))
    assert found.count == len(set(found.labels.tolist()))


@every_engine
@given(videos(), TAUS)
def test_components_of_many_sets_are_numbered_set_after_set(name, video, tau):
    assume(all((abs(similarities(frame) - tau) > ROUNDING).all() for frame in video))
    engine = build(name)
    expected = []
    for frame in video:
        labels = labels_of(components(neighbours(similarities(frame), tau)))
        expected += [max(expected, default=-1) + 1 + label for label in labels]
    assert engine.components(engine.vertices(video), tau).labels.tolist() == expected


@every_engine
@pytest.mark.parametrize("kind", [gaussian, smooth])
@pytest.mark.parametrize("bounds", [(0.9, 1.0), (0.1, 0.3), (-0.5, 0.95), (0.97, 0.99)])
def test_clusters_of_single_linkage(name, kind, bounds):
    tokens = draw(kind, 1, 30, 5)
    engine, similarity = build(name), similarities(tokens[0])
    weights = {(i, j): similarity[i, j] for i in range(30) for j in range(i + 1, 30)}
    for count in (1, 2, 7, 20, 30):
        found, height = engine.single_linkage(engine.vertices(tokens), count, *bounds)
        assert partition(found.labels) == kruskal_parts(30, weights, count)
        if count < 30 and height < bounds[1]:
            last = sorted(linkage(1 - similarity[np.triu_indices(30, 1)], "single")[:, 2])[29 - count]
            assert abs(1 - last - height) < ROUNDING


@every_engine
@given(videos(), videos())
def test_the_nearest_representatives(name, video, others):
    tokens = video.flatten(0, 1)
    width = min(tokens.shape[1], others.shape[2])
    video, to = video[..., :width].contiguous(), others.flatten(0, 1)[:, :width].contiguous()
    own = torch.arange(len(tokens)) % len(to)
    expected, margin = two_steps.nearest(video.flatten(0, 1).numpy(), to.numpy(), own.tolist())
    assume(margin > ROUNDING)
    engine = build(name)
    assert engine.nearest(engine.vertices(video), to, own).tolist() == expected


@every_engine
@pytest.mark.parametrize("kind", [gaussian, smooth])
def test_heights_are_about_those_of_scipy(name, kind):
    video = draw(kind, 6, 12, 64)
    engine = build(name)
    alone, together = engine.heights(engine.vertices(video), torch.tensor([[0, 1], [4, 5]]), 8)
    unit = torch.nn.functional.normalize(video[:, 2:10].double(), dim=-1)
    groups = [unit[0], unit[4], torch.cat([unit[0], unit[1]]), torch.cat([unit[4], unit[5]])]
    expected = []
    for group in groups:
        pairs = np.triu_indices(len(group), 1)
        expected.append(1 - linkage(1 - (group @ group.T).numpy()[pairs], "single")[:, 2])
    for found, parts in ((alone, expected[:2]), (together, expected[2:])):
        np.testing.assert_allclose(np.sort(found), np.sort(np.concatenate(parts)), atol=0.02)


@every_engine
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sample_size", [None, 4])
def test_blocks_change_nothing(name, kind, sample_size):
    video = draw(kind, 3, 11, 6)
    found = []
    for block_size in (None, 1, 30, 200):
        engine = build(name, block_size=block_size, sample_size=sample_size)
        vertices = engine.vertices(video)
        flat = engine.vertices(video.flatten(0, 1)[None])
        found.append(
            [
                engine.components(vertices, 0.6).labels.tolist(),
                engine.single_linkage(flat, 7, 0.5, 0.9)[0].labels.tolist(),
                engine.nearest(vertices, video[0], torch.zeros(33, dtype=torch.int64)).tolist(),
            ]
        )
    assert all(other == found[0] for other in found[1:])


@every_engine
def test_a_sample_is_drawn_from_the_seed(name):
    video = draw(gaussian, 2, 40, 3)
    first, again, other = (
        build(name, sample_size=3, seed=seed).components(
            build(name, sample_size=3, seed=seed).vertices(video), 0.5
        )
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.labels, other.labels)


@every_engine
def test_a_token_that_is_not_finite_is_named(name):
    video = torch.ones(2, 3, 4)
    video[1, 2, 0] = torch.nan
    with pytest.raises(InputError, match="frame 1, token 2"):
        build(name).vertices(video)
