from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.compression.engines.tiled import tuning
from llava_scissor.compression.engines.tiled.similarity import directions, draw_sample
from llava_scissor.errors import InputError
from tests.compression.draws import draw, gaussian
from tests.reference.graph import unit_vectors

CPU = torch.device("cpu")


@pytest.mark.parametrize("magnitude", [1e38, 1e30, 1.0, 1e-30, 1e-38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unit_vectors_do_not_depend_on_magnitude(magnitude, dtype):
    tokens = (draw(gaussian, 1, 20, 16)[0].clamp(-3, 3).double() * magnitude).to(dtype)
    found = directions(tokens)
    np.testing.assert_allclose(found.unit.numpy(), unit_vectors(tokens), atol=1e-6)
    assert not found.has_zero


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_anything_is_added(dtype):
    tokens = (draw(gaussian, 1, 20, 64)[0].sign() * 65504).to(dtype)
    found = directions(tokens)
    assert found.unit.dtype == torch.float32
    np.testing.assert_allclose(found.unit.numpy(), unit_vectors(tokens.float()), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows_each", [1, 3, 7])
def test_tokens_converted_together_know_nothing_of_each_other(monkeypatch, dtype, rows_each):
    tokens = draw(gaussian, 1, 20, 16)[0].to(dtype)
    tokens[5] *= 2.0**20
    tokens[11] = 0
    whole = directions(tokens)
    monkeypatch.setattr(tuning, "CPU", replace(tuning.CPU, coordinates_each=rows_each * 16))
    parts = directions(tokens)
    assert parts.coarse_error == whole.coarse_error
    for name in ("norm", "coarse", "is_zero", "unit"):
        assert torch.equal(getattr(parts, name), getattr(whole, name))


def test_the_smallest_numbers_still_have_a_direction():
    tiny = torch.tensor([[2.0**-149, 0.0], [-(2.0**-149), 2.0**-149], [-0.0, 0.0]])
    found = directions(tiny)
    torch.testing.assert_close(found.unit, torch.tensor([[1, 0], [-(0.5**0.5), 0.5**0.5], [0, 0]]))
    assert found.is_zero.tolist() == [False, False, True]
    assert found.has_zero


def test_float64_below_float32_is_zero():
    assert directions(torch.tensor([[1e-60, 0.0]], dtype=torch.float64)).is_zero.tolist() == [True]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e60])
def test_a_value_that_is_not_finite_is_named(value):
    tokens = torch.ones(3, 5, 2, dtype=torch.float64)
    tokens[2, 4, 0] = tokens[1, 3, 1] = value
    with pytest.raises(InputError, match="got NaN or infinity at frame 1, token 3; check the vision tower"):
        directions(tokens)
    with pytest.raises(InputError, match="at token 3;"):
        directions(tokens[1])


def test_nan_is_found_beside_infinity():
    with pytest.raises(InputError, match="at token 0"):
        directions(torch.tensor([[float("nan"), float("inf")], [1.0, 1.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_input_is_not_modified(dtype):
    tokens = draw(gaussian, 2, 3, 4).to(dtype)
    before = tokens.clone()
    directions(tokens)
    assert torch.equal(tokens, before)


@given(st.integers(1, 4), st.integers(1, 20), st.integers(1, 25), st.integers(0, 2**63 - 1))
def test_a_sample_is_distinct_ascending_and_seeded(num_sets, size, sample_size, seed):
    sample = draw_sample(num_sets, size, sample_size, seed, CPU)
    if sample_size >= size:
        assert sample is None
    else:
        assert sample.shape == (num_sets, sample_size)
        assert (sample.diff(dim=1) > 0).all()
        assert sample.min() >= 0
        assert sample.max() < size
        assert torch.equal(sample, draw_sample(num_sets, size, sample_size, seed, CPU))


def test_no_sample_size_means_all():
    assert draw_sample(2, 5, None, 0, CPU) is None


def test_every_token_is_sampled_equally_often():
    counts = torch.bincount(draw_sample(4000, 10, 3, 7, CPU).flatten(), minlength=10)
    # Each count is binomial with mean 1200 and deviation 29.
    assert (counts - 1200).abs().max() < 4 * 29
