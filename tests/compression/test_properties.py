"""The invariants that the definition of the compressor promises, on videos of every kind."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from llava_scissor.compression import ScissorConfig, compress
from llava_scissor.compression.engines.tiled.similarity import directions
from llava_scissor.compression.engines.tiled.tiles import TokenSets
from llava_scissor.compression.merging import mean_by_label
from tests.compression.checks import assert_same_bytes
from tests.compression.draws import (
    ROUNDING,
    connected_components,
    draw,
    gaussian,
    one_set,
    partition,
    similarity,
    smooth,
    video_of,
    videos,
)
from tests.reference import two_steps

TAUS = st.floats(-1, 1) | st.sampled_from([-1.0, 0.0, 0.9, 1.0])


@st.composite
def configs(draw_value) -> ScissorConfig:
    """Every operating point, exact and sampled."""
    search = draw_value(st.sampled_from([{}, {"sample_size": 3}, {"epsilon": 0.8}]))
    return ScissorConfig(
        tau=draw_value(st.none() | TAUS),
        retention_ratio=draw_value(st.none() | st.floats(0, 1, exclude_min=True)),
        seed=draw_value(st.integers(0, 9)),
        **search,
    )


@given(videos(max_size=12), TAUS, TAUS)
def test_raising_tau_only_splits(video, tau, other):
    sets = TokenSets(directions(video))
    coarse, fine = (connected_components(sets, each).labels for each in sorted([tau, other]))
    for part in partition(fine):
        assert coarse[list(part)].unique().numel() == 1


@given(videos(max_frames=1, max_size=12), TAUS)
def test_components_are_a_partition_in_which_every_link_stays_inside(video, tau):
    sets = one_set(video[0])
    found = connected_components(sets, tau)
    assert found.labels.unique().tolist() == list(range(found.count))
    u, v = torch.triu_indices(video.shape[1], video.shape[1], 1)
    is_linked = similarity(sets, u, v).double() > tau
    u, v = u[is_linked], v[is_linked]
    assert torch.equal(found.labels[u], found.labels[v])


@given(videos(), TAUS, st.data())
def test_permuting_the_tokens_of_a_frame_permutes_labels_and_nothing_else(video, tau, data):
    assume(two_steps.compress(video.numpy(), tau).margin > ROUNDING)
    num_frames, size, width = video.shape
    places = [f * size + i for f in range(num_frames) for i in data.draw(st.permutations(range(size)))]
    permuted = video.view(-1, width)[places].view(video.shape)
    config = ScissorConfig(tau=tau)
    before, after = compress(video, config), compress(permuted, config)
    assert partition(after.component) == {
        frozenset(places.index(i) for i in part) for part in partition(before.component)
    }
    assert sorted(after.sizes.tolist()) == sorted(before.sizes.tolist())
    assert after.num_spatial == before.num_spatial
    torch.testing.assert_close(
        after.tokens[after.assignment], before.tokens[before.assignment][places], rtol=1e-5, atol=1e-5
    )


@given(videos(), configs())
def test_every_output_lies_in_the_convex_hull_of_the_inputs(video, config):
    # Nothing may reach further than the inputs in any direction. Means of n values round by n steps at most.
    result = compress(video, config)
    towards = torch.cat([torch.eye(video.shape[2]), torch.randn(video.shape[2], 20, generator=generator()).T])
    inputs, outputs = (towards @ tokens.T for tokens in (video.flatten(0, 1), result.tokens))
    tolerance = 1e-5 * (1 + inputs.abs().max())
    assert (outputs.amax(1) <= inputs.amax(1) + tolerance).all()
    assert (outputs.amin(1) >= inputs.amin(1) - tolerance).all()


@given(videos(), TAUS)
def test_each_step_keeps_the_sum(video, tau):
    steps = video_of(video).two_steps(tau)
    flat, spatial = video.flatten(0, 1), steps.spatial
    for tokens, found in ((flat, spatial.components), (spatial.means, steps.temporal)):
        sizes = torch.bincount(found.labels, minlength=found.count)
        means = mean_by_label(tokens, found.labels, found.count)
        assert sizes.sum() == len(tokens)
        torch.testing.assert_close((sizes[:, None] * means).sum(0), tokens.sum(0), rtol=1e-4, atol=1e-4)


@given(videos(), TAUS)
def test_every_token_joins_a_most_similar_representative(video, tau):
    unit = directions(video)
    steps = video_of(video).two_steps(tau)
    representatives = mean_by_label(steps.spatial.means, steps.temporal.labels, steps.temporal.count)
    targets = directions(representatives)
    result = compress(video, ScissorConfig(tau=tau))
    cosine = unit.unit.flatten(0, 1) @ targets.unit.T
    cosine[:, targets.is_zero] = -2
    joined = cosine.gather(1, result.assignment[:, None])[:, 0]
    is_zero = unit.is_zero.flatten() | targets.is_zero.all()
    assert torch.equal(result.assignment[is_zero], result.component[is_zero])
    assert (joined[~is_zero] >= cosine.amax(1)[~is_zero] - ROUNDING).all()


@given(videos(), configs(), videos())
def test_the_same_bytes_every_time(video, config, other):
    before = video.clone()
    first = compress(video, config)
    compress(other, config)
    torch.manual_seed(12345)
    second = compress(video, config)
    assert_same_bytes(first, second)
    assert torch.equal(video, before)


@pytest.mark.parametrize(
    "config", [ScissorConfig(tau=0.5), ScissorConfig(retention_ratio=0.1, sample_size=40)]
)
@pytest.mark.parametrize("kind", [gaussian, smooth])
def test_the_number_of_threads_does_not_matter(config, kind):
    video, threads = draw(kind, 4, 100, 64), torch.get_num_threads()
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append(compress(video, config))
    torch.set_num_threads(threads)
    assert_same_bytes(*results)


@pytest.mark.parametrize(
    "config",
    [ScissorConfig(tau=0.5), ScissorConfig(retention_ratio=0.3), ScissorConfig(sample_size=3, seed=7)],
)
def test_global_random_state_is_left_alone(config, unchecked_shapes):  # the checks draw at random
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    compress(draw(gaussian, 3, 8, 5), config)
    after = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    assert torch.equal(states[0], after[0])
    assert (states[1][1] == after[1][1]).all()
    assert states[1][2:] == after[1][2:]
    assert states[2] == after[2]


@given(videos(), configs())
def test_a_result_does_not_share_memory_with_the_video_unless_it_is_the_video(video, config):
    result = compress(video, config)
    shares = result.tokens.untyped_storage().data_ptr() == video.untyped_storage().data_ptr()
    assert not shares or torch.equal(result.tokens, video.flatten(0, 1))


@given(videos(max_frames=1), TAUS)
def test_repeating_a_frame_repeats_its_components(video, tau):
    labels = connected_components(TokenSets(directions(video.expand(3, -1, -1))), tau).labels.view(3, -1)
    count = int(labels[0].max()) + 1
    assert torch.equal(labels[1], labels[0] + count)
    assert torch.equal(labels[2], labels[0] + 2 * count)


def generator():
    return torch.Generator().manual_seed(0)
