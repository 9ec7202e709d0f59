"""Decisions by products of bounded error are those of the exact similarities, however close to the threshold."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.compression import ScissorConfig, compress
from llava_scissor.compression.engines.tiled import screening, tuning
from llava_scissor.compression.engines.tiled.graph import SimilarityGraph
from llava_scissor.compression.engines.tiled.labels import label_edges, order_components
from llava_scissor.compression.engines.tiled.nearest import nearest
from llava_scissor.compression.engines.tiled.similarity import (
    GRID,
    directions,
    similarity_of_all,
    similarity_of_pairs,
)
from llava_scissor.compression.engines.tiled.tiles import TokenSets
from tests.compression.checks import assert_same_bytes
from tests.compression.draws import KINDS, draw, gaussian, on_circle, one_set, similarity, smooth, with_zeros

FORMATS = [torch.float32, torch.bfloat16]
SIZES = [{"few": few, "few_pairs": pairs} for few, pairs in ((1, 0), (1, 2**9), (16, 0), (10**9, 0))]


@pytest.fixture(params=itertools.product(FORMATS, SIZES), ids=str)
def way(request, monkeypatch):
    """Every way to a decision: product in a format, then by pairs (those that matter, or all) or as a whole."""
    take_way(monkeypatch, *request.param)


def take_way(monkeypatch, dtype, sizes):
    monkeypatch.setattr(screening, "fast_dtype", lambda device: dtype)
    monkeypatch.setattr(tuning, "CPU", replace(tuning.CPU, **sizes))


def plain_graph(tokens, tau):
    """Components and degrees from all similarities, one by one."""
    sets = one_set(tokens)
    size = len(tokens)
    u, v = torch.triu_indices(size, size, 1)
    is_edge = similarity(sets, u, v).double() > tau
    degree = torch.bincount(torch.cat([u[is_edge], v[is_edge]]), minlength=size)
    labels = label_edges(size, u[is_edge], v[is_edge])
    return order_components(labels, degree)


def assert_plain(tokens, tau):
    found, expected = SimilarityGraph(one_set(tokens), tau).components(), plain_graph(tokens, tau)
    assert found.labels.tolist() == expected.labels.tolist()
    assert found.count == expected.count


def wide(kind, seed=0):
    return draw(kind, 1, 60, 128, seed)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_threshold_at_a_similarity(way, kind):
    tokens = wide(kind)
    u, v = torch.triu_indices(len(tokens), len(tokens), 1)
    values = similarity(one_set(tokens), u, v).unique().double()
    for value in values[torch.linspace(0, len(values) - 1, 4).long()].tolist():
        for tau in (value, np.nextafter(value, 2), np.nextafter(value, -2), value - 1 / GRID, value + 1e-4):
            if -1 <= tau <= 1:
                assert_plain(tokens, tau)


def around(tau, width=64, size=60, spread=1e-7):
    """Pairs of neighbours whose similarity is tau up to a spread; other pairs are orthogonal or further."""
    draw_number = torch.Generator().manual_seed(int(abs(tau) * 1e4))
    angles = math.acos(tau) + spread * torch.randn(size, generator=draw_number, dtype=torch.float64)
    tokens = torch.zeros(size, width, dtype=torch.float64)
    tokens[:, :2] = on_circle(angles.cumsum(0)).double()
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=draw_number, dtype=torch.float64))
    return (tokens @ turn).float()


@pytest.mark.parametrize("tau", [0.9, 0.999, 0.5, 0.0, -0.5])
@pytest.mark.parametrize("spread", [0, 1e-8, 1e-6, 1e-3])
def test_many_similarities_at_the_threshold(way, tau, spread):
    assert_plain(around(tau, spread=spread), tau)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sample_size", [None, 7])
def test_every_way_compresses_to_the_same_bytes(kind, sample_size):
    video = draw(kind, 4, 9, 96)
    for config in (
        ScissorConfig(tau=0.8, sample_size=sample_size),
        ScissorConfig(retention_ratio=0.3, sample_size=sample_size),
    ):
        expected = compress(video, config)
        for dtype, sizes, block_size in itertools.product(FORMATS, SIZES, [None, 300]):
            with pytest.MonkeyPatch.context() as patch:
                take_way(patch, dtype, sizes)
                other = config.model_copy(update={"block_size": block_size})
                assert_same_bytes(compress(video, other), expected)


@pytest.mark.parametrize("kind", [gaussian, smooth, with_zeros])
@pytest.mark.parametrize("scale", [1e-5, 1e-3, 0.1])
def test_the_nearest_of_many_that_are_nearly_as_near(way, kind, scale):
    tokens = wide(kind)
    draw_number = torch.Generator().manual_seed(0)
    targets = tokens[:1] + scale * torch.randn(30, tokens.shape[1], generator=draw_number)
    targets = torch.cat([targets, targets[:3]])  # exact ties
    unit, to = directions(tokens), directions(targets)
    exact = similarity_of_all(unit.unit[None], to.unit[None])[0]
    expected = [row.index(max(row)) for row in exact.tolist()]
    own = torch.arange(len(tokens)) % len(targets)
    expected = [int(own[i]) if unit.is_zero[i] else best for i, best in enumerate(expected)]
    assert nearest(unit, to, own).tolist() == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_products_keep_their_bound(kind, dtype):
    unit = directions(draw(kind, 2, 50, 300)).unit
    rounded = unit.to(dtype)
    error = 0.0 if dtype == torch.float32 else float(screening.rounding_error(unit, rounded))
    assert error <= 1.002 * screening.UNIT_ROUNDOFF[dtype] + 1e-7
    if dtype == torch.float16:  # products of float16 are added in float32 on a GPU
        rounded = rounded.float()
    found = screening.product(rounded, rounded).clamp(max=1).double()
    bound = screening.product_error(dtype, 300, error, error)
    assert (found - similarity_of_all(unit, unit).double()).abs().max() <= bound
    assert bound < {torch.bfloat16: 0.012, torch.float16: 0.003, torch.float32: 1e-4}[dtype]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@given(st.floats(-1, 1), st.floats(1e-6, 0.1))
def test_brackets_are_rounded_away_from_the_threshold(dtype, tau, error):
    low, high = screening.bracket(tau, error, dtype)
    assert low <= max(tau - error, -1) or low == torch.finfo(dtype).min
    assert high >= tau + error
    assert torch.tensor(low, dtype=dtype).item() == low
    assert high == math.inf or torch.tensor(high, dtype=dtype).item() == high
    assert high == math.inf or high - (tau + error) <= 2.0**-7
    assert low < -1 or (tau - error) - low <= 2.0**-7


def test_a_similarity_is_the_same_from_both_ends_and_in_any_company():
    unit = directions(wide(gaussian))
    u, v = (pairs.flatten() for pairs in torch.meshgrid(torch.arange(60), torch.arange(60), indexing="ij"))
    values = similarity_of_pairs(unit, u, unit, v)[0].view(60, 60)
    assert torch.equal(values, values.T)
    assert torch.equal(values, similarity_of_all(unit.unit[None], unit.unit[None])[0])
    for pair in range(0, 3600, 97):
        alone, _ = similarity_of_pairs(unit, u[pair : pair + 1], unit, v[pair : pair + 1])
        assert alone.item() == values.flatten()[pair].item()
    assert torch.equal((values.double() * GRID).round() / GRID, values.double())


def test_pairs_that_the_product_cannot_round_are_formed_one_by_one():
    # Dot products half way between two multiples of 1 / GRID: 2^-25 and 3 * 2^-25, rounded to even.
    left = torch.tensor([[2.0**-12, 0.0], [0.75 * 2.0**-11, 0.0]])
    right = torch.tensor([[2.0**-13, 0.0], [2.0**-12, 0.0]])
    assert (similarity_of_all(left[None], right[None])[0] * GRID).tolist() == [[0, 1], [1, 2]]


@pytest.mark.parametrize("kind", [gaussian, smooth])
def test_rough_similarities_keep_their_bound(kind):
    unit = directions(wide(kind))
    u, v = torch.triu_indices(60, 60)
    rough, error = similarity_of_pairs(unit, u, unit, v, is_rough=True)
    exact, _ = similarity_of_pairs(unit, u, unit, v)
    assert 0 < (rough.double() - exact.double()).abs().max() <= error < 1e-4


def test_shortened_float32_products_are_expected(monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert screening.matrix_error(torch.float32) >= 2.0**-8
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "highest")
    assert screening.matrix_error(torch.float32) == 0


def test_a_gpu_multiplies_in_float16_where_torch_can_return_the_sums(monkeypatch):
    for version, dtype in (
        ("2.7.1+cu126", torch.float32),
        ("2.8.0", torch.float16),
        ("2.13.0", torch.float16),
    ):
        monkeypatch.setattr(torch, "__version__", version)
        assert screening.fast_dtype(torch.device("cuda")) == dtype


def test_the_fast_format_depends_on_the_processor(monkeypatch):
    for is_fast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda is_fast=is_fast: is_fast)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert screening.fast_dtype(torch.device("cpu")) == dtype


def test_pairs_that_are_too_many_to_remember_are_decided_at_once(monkeypatch):
    tokens = around(0.9)
    expected = plain_graph(tokens, 0.9)
    monkeypatch.setattr(tuning, "CPU", replace(tuning.CPU, few=1, many_pairs=5))
    found = SimilarityGraph(TokenSets(directions(tokens[None]), None, 100), 0.9).components()
    assert found.labels.tolist() == expected.labels.tolist()
