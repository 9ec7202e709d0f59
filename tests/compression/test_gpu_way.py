"""What is written for a GPU, on a CPU: the same results, and a host that hardly waits."""

from __future__ import annotations

from collections import Counter
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from llava_scissor.compression import (
    ScissorConfig,
    compress,
    compress_batch,
    fixed_graph,
    on_device,
    precision,
    scissor,
)
from llava_scissor.compression.fixed_graph import Checks, FixedGraph, MisfitError
from llava_scissor.compression.on_device import compress_on_device
from llava_scissor.errors import InputError
from tests.compression.checks import assert_same_bytes
from tests.compression.draws import (
    KINDS,
    chain,
    constant,
    draw,
    duplicates,
    gaussian,
    smooth,
    videos,
    with_zeros,
)

CONFIGS = {
    "tau": ScissorConfig(tau=0.8),
    "low tau": ScissorConfig(tau=-0.2),
    "highest tau": ScissorConfig(tau=1.0),
    "budget": ScissorConfig(retention_ratio=0.3),
    "both": ScissorConfig(tau=0.9, retention_ratio=0.2),
    "sampled": ScissorConfig(tau=0.8, sample_size=7),
    "sampled budget": ScissorConfig(retention_ratio=0.3, sample_size=7),
    "windows": ScissorConfig(preset="recommended", tau=0.7),
    "recommended": ScissorConfig(preset="recommended", retention_ratio=0.3),
}
AT_ONCE = [name for name in CONFIGS if "sampled" not in name]


def as_on_a_gpu(monkeypatch, dtype=torch.float32, at_once=True):
    monkeypatch.setattr(precision, "on_cpu", lambda device: False)
    monkeypatch.setattr(precision, "has_fixed_lists", lambda device: True)  # on a CPU of any torch
    monkeypatch.setattr(precision, "fast_dtype", lambda device: dtype)
    if not at_once:
        monkeypatch.setattr(scissor, "fits", lambda tokens, config: False)


def assert_same(found, expected):
    assert torch.equal(found.component, expected.component)
    assert torch.equal(found.assignment, expected.assignment)
    assert (found.tau, found.num_spatial) == (expected.tau, expected.num_spatial)
    assert (found.positions is None) == (expected.positions is None)
    assert found.positions is None or torch.equal(found.positions, expected.positions)
    torch.testing.assert_close(found.tokens, expected.tokens, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("at_once", [True, False])
def test_the_way_of_a_gpu_leads_to_the_same_result(monkeypatch, kind, config, at_once):
    video = draw(kind, 17, 9, 12)
    expected = compress(video, config)
    as_on_a_gpu(monkeypatch, at_once=at_once)
    assert_same(compress(video, config), expected)


@pytest.mark.parametrize("kind", [gaussian, smooth, chain, duplicates])
@pytest.mark.parametrize("name", AT_ONCE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_once_is_the_general_way(monkeypatch, kind, name, dtype):
    for seed in range(3):
        video = draw(kind, 6, 16, 32, seed)
        with pytest.MonkeyPatch.context() as patch:
            as_on_a_gpu(patch, dtype, at_once=False)
            expected = compress(video, CONFIGS[name])
        as_on_a_gpu(monkeypatch, dtype)
        assert on_device.fits(video, CONFIGS[name])
        assert_same_bytes(compress_on_device(video, CONFIGS[name]), expected)


@given(
    videos(max_size=9, max_width=20),
    st.floats(-1, 1),
    st.sampled_from([None, 0.1, 0.5]),
    st.sampled_from([1, 2, 30, 2**13]),
    st.sampled_from([(0, 3, 6), (1, 0, 6), (1, 1, 0), (2, 3, 1)]),
)
def test_nothing_is_wrong_where_the_room_does_not_suffice(video, tau, ratio, many_open, rounds):
    config = ScissorConfig(tau=tau, retention_ratio=ratio)
    with pytest.MonkeyPatch.context() as patch:
        as_on_a_gpu(patch, torch.bfloat16, at_once=False)
        expected = compress(video, config)
    with pytest.MonkeyPatch.context() as patch:
        as_on_a_gpu(patch, torch.bfloat16)
        patch.setattr(fixed_graph, "MANY_OPEN", many_open)
        for name, size in zip(("ROUNDS", "FEW_ROUNDS", "JUMPS"), rounds, strict=True):
            patch.setattr(fixed_graph, name, size)
        assert_same_bytes(compress(video, config), expected)


@pytest.mark.parametrize(("room", "size"), [("MANY_OPEN", 3), ("ROUNDS", 0), ("FEW_ROUNDS", 0)])
def test_room_that_does_not_suffice_is_noticed(monkeypatch, room, size):
    as_on_a_gpu(monkeypatch, torch.bfloat16)
    video = draw(gaussian, 6, 16, 4)
    compress_on_device(video, CONFIGS["tau"])
    monkeypatch.setattr(fixed_graph, room, size)
    with pytest.raises(MisfitError):
        compress_on_device(video, CONFIGS["tau"])


def nothing_is_settled(self, matters):
    none = torch.zeros(1, dtype=torch.int64)
    return none, none


MISTAKES = {
    "open pairs are no edges": (FixedGraph, "_settle", nothing_is_settled),
    "edges found last join nothing": (FixedGraph, "_join_along", lambda self, u, v: None),
    "components in order of their first token": (
        fixed_graph,
        "number_by_leader",
        lambda labels, degree: number(labels, torch.zeros_like(degree)),
    ),
    "the best product is the nearest": (on_device, "error_of_products", lambda left, right: 0.0),
    "products decide": (fixed_graph, "error_of_products", lambda left, right: 0.0),
    "windows are ignored": (
        FixedGraph,
        "__init__",
        lambda self, unit, tau, checks, window=None: build(self, unit, tau, checks),
    ),
}
number, build = fixed_graph.number_by_leader, FixedGraph.__init__


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_comparison_notices_a_mistake(monkeypatch, mistake):
    cases = [
        (draw(gaussian, 6, 16, 4, seed), CONFIGS[name]) for seed in range(10) for name in ("tau", "windows")
    ]
    as_on_a_gpu(monkeypatch, torch.bfloat16)
    expected = [compress_on_device(*case) for case in cases]
    monkeypatch.setattr(*mistake)
    monkeypatch.setattr(Checks, "fetch", lambda self, *numbers: fixed_graph.fetch(*numbers))
    found = [compress_on_device(*case) for case in cases]
    assert not all(
        torch.equal(one.component, other.component) and torch.equal(one.assignment, other.assignment)
        for one, other in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("kind", [with_zeros, constant])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_unusual_lengths_take_the_general_way(monkeypatch, kind, scale):
    video = draw(kind, 4, 9, 12) * scale
    expected = compress(video, CONFIGS["tau"])
    as_on_a_gpu(monkeypatch)
    if kind is with_zeros or scale != 1:
        with pytest.raises(MisfitError):
            compress_on_device(video, CONFIGS["tau"])
    assert torch.equal(compress(video, CONFIGS["tau"]).component, expected.component)


def test_a_token_that_is_not_finite_is_named(monkeypatch):
    as_on_a_gpu(monkeypatch)
    video = draw(gaussian, 3, 4, 5)
    video[1, 2, 3] = torch.nan
    with pytest.raises(InputError, match="frame 1, token 2"):
        compress(video, CONFIGS["tau"])


@pytest.mark.parametrize(
    ("config", "is_one"),
    [
        (ScissorConfig(tau=0.8), True),
        (ScissorConfig(tau=0.8, block_size=144), True),
        (ScissorConfig(tau=0.8, block_size=143), False),
        (ScissorConfig(tau=0.8, sample_size=5), False),
        (ScissorConfig(tau=0.8, epsilon=0.5), False),
        (ScissorConfig(retention_ratio=0.99), True),
        (ScissorConfig(retention_ratio=1.0), False),
        (ScissorConfig(tau=0.8, retention_ratio=1.0), True),
    ],
)
def test_videos_that_are_compressed_at_once(monkeypatch, config, is_one):
    video = draw(gaussian, 3, 4, 5)
    assert not on_device.fits(video, config)
    as_on_a_gpu(monkeypatch)
    assert on_device.fits(video, config) == is_one


def test_a_batch_is_its_videos(monkeypatch):
    as_on_a_gpu(monkeypatch)
    batch = [draw(smooth, frames, 9, 12, frames) for frames in (1, 4, 7)]
    for found, video in zip(compress_batch(batch, CONFIGS["tau"]), batch, strict=True):
        assert_same_bytes(found, compress(video, CONFIGS["tau"]))


@pytest.mark.parametrize("name", ["tau", "windows"])
def test_no_shape_depends_on_what_is_found(monkeypatch, name):
    class Reached(Exception): ...

    as_on_a_gpu(monkeypatch)
    monkeypatch.setattr(fixed_graph, "fetch", Mock(side_effect=Reached))
    with FakeTensorMode() as mode, pytest.raises(Reached):
        compress_on_device(mode.from_tensor(draw(smooth, 6, 16, 32)), CONFIGS[name])


class Waits(TorchDispatchMode):
    """Counts operations whose result the host has to know before it can go on."""

    NAMES = (
        "_local_scalar_dense",
        "nonzero",
        "bincount",
        "_unique2",
        "equal",
        "masked_select",
        "repeat_interleave",
    )

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in arguments[1]
        )
        if name in self.NAMES or masks:
            self.count[name] += 1
        return function(*arguments, **(options or {}))


def count_waits(monkeypatch, video, config):
    """Return how often numbers are fetched for a result that is computed at once, and other waits."""
    fetched = Mock(side_effect=fixed_graph.fetch)
    with monkeypatch.context() as patch, Waits() as waits:
        patch.setattr(fixed_graph, "fetch", fetched)
        compress(video, config)
    return fetched.call_count, waits.count.total()


@pytest.mark.parametrize("kind", [gaussian, smooth, chain])
@pytest.mark.parametrize("name", ["tau", "windows"])
def test_the_host_waits_once_at_a_threshold(monkeypatch, kind, name):
    as_on_a_gpu(monkeypatch)
    for frames in (2, 40):
        assert count_waits(monkeypatch, draw(kind, frames, 16, 12), CONFIGS[name]) == (1, 0)


@pytest.mark.parametrize("kind", [gaussian, smooth])
@pytest.mark.parametrize("name", ["budget", "recommended"])
def test_the_host_waits_once_for_each_trial_of_a_budget(monkeypatch, kind, name):
    as_on_a_gpu(monkeypatch)
    tried = Mock(side_effect=on_device._Video.at, autospec=True)
    monkeypatch.setattr(on_device._Video, "at", lambda *arguments: tried(*arguments))
    fetched, others = count_waits(monkeypatch, draw(kind, 40, 16, 12), CONFIGS[name])
    assert fetched == tried.call_count + 1
    assert others <= 25  # to merge what is too many


@pytest.mark.parametrize(("kind", "config"), [(gaussian, "tau"), (smooth, "tau"), (gaussian, "sampled")])
def test_the_host_does_not_wait_for_every_frame(monkeypatch, kind, config):
    as_on_a_gpu(monkeypatch, at_once=False)
    few, many = (
        sum(count_waits(monkeypatch, draw(kind, frames, 16, 12), CONFIGS[config])) for frames in (4, 64)
    )
    assert many <= few + 25  # 60 frames more; labels of larger components take some rounds more


def test_the_host_waits_for_every_frame_in_a_loop_over_frames():
    def look_at_each(video):
        for frame in video:
            bool((frame > 0).any())

    with Waits() as waits:
        look_at_each(draw(gaussian, 64, 16, 12))
    assert waits.count.total() == 64
