from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from llava_scissor.compression.engines.tiled.similarity import directions
from tests.compression.draws import (
    ROUNDING,
    connected_components,
    draw,
    duplicates,
    gaussian,
    video_of,
    videos,
)
from tests.reference import two_steps


@given(videos(), st.floats(-1, 1))
def test_the_spatial_step_finds_the_means_of_every_frame(tokens, tau):
    video = video_of(tokens)
    expected, margins = [], []
    for frame in tokens.double().numpy():
        parts, margin = two_steps.step(frame, tau)
        expected.append(two_steps.means(frame, parts))
        margins.append(margin)
    assume(min(margins) > ROUNDING)
    spatial = video.spatial_step(tau)
    np.testing.assert_allclose(spatial.means, np.concatenate(expected), rtol=1e-5, atol=1e-5)
    assert spatial.components.count == len(spatial.means) == spatial.vertices.num_vertices


@given(videos(), videos(), st.floats(-1, 1), st.data())
def test_frames_do_not_influence_each_other(tokens, others, tau, data):
    changed = data.draw(st.integers(0, len(tokens) - 1))
    other = tokens.clone()
    other[changed] = others.flatten()[torch.arange(tokens[0].numel()) % others.numel()].view(tokens[0].shape)
    for config in ({}, {"sample_size": 2}):
        labels = [
            connected_components(video_of(each, **config).frames, tau).labels.view(tokens.shape[:2])
            for each in (tokens, other)
        ]
        for f in set(range(len(tokens))) - {changed}:
            assert torch.equal(labels[0][f] - labels[0][f].min(), labels[1][f] - labels[1][f].min())


def test_both_steps_share_the_threshold():
    video = video_of(draw(duplicates, 4, 9, 6))
    steps = video.two_steps(0.99)
    assert steps.tau == steps.spatial.tau == 0.99
    assert steps.gap == 0
    assert steps.spatial.components.count <= 20
    assert steps.temporal.count <= 5


def test_all_tokens_as_one_list():
    flat = directions(draw(gaussian, 2, 3, 4)).flatten()
    assert flat.unit.shape == (6, 4)
    assert flat.is_zero.tolist() == [False] * 6


@pytest.mark.parametrize("size", [1, 2, 10, 100])
@pytest.mark.parametrize("epsilon", [0.3, 0.7, 1.0])
def test_epsilon_gives_the_size_of_the_sample(size, epsilon):
    sample = video_of(torch.ones(2, size, 1), epsilon=epsilon).frames.sample
    expected = max(1, math.ceil(math.log(size) / epsilon**2))
    if expected >= size:
        assert sample is None
    else:
        assert sample.shape == (2, expected)


def test_an_epsilon_of_five_percent_is_exact_up_to_3233_tokens():
    assert video_of(torch.ones(1, 3233, 1), epsilon=0.05).frames.sample is None
    assert video_of(torch.ones(1, 3234, 1), epsilon=0.05).frames.sample.shape == (1, 3233)


def test_a_sample_size_is_taken_as_it_is():
    assert video_of(torch.ones(3, 9, 1), sample_size=4).frames.sample.shape == (3, 4)
    assert video_of(torch.ones(3, 9, 1), sample_size=9).frames.sample is None
    assert video_of(torch.ones(3, 9, 1)).frames.sample is None


def test_the_seed_decides_the_sample():
    tokens = torch.ones(3, 50, 1)
    first, again, other = (video_of(tokens, sample_size=10, seed=s).frames.sample for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
