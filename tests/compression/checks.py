"""What is compared of a result."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from llava_scissor.compression import CompressionResult
from tests.reference.two_steps import Outcome


def assert_agrees(result: CompressionResult, outcome: Outcome, tolerance: float = 1e-5) -> None:
    """Assert that a result is what the oracle found; decisions exactly, tokens up to rounding."""
    assert result.component.tolist() == outcome.component
    assert result.assignment.tolist() == outcome.assignment
    assert result.num_spatial == outcome.num_spatial
    np.testing.assert_allclose(result.tokens.double().numpy(), outcome.tokens, rtol=tolerance, atol=tolerance)


def assert_well_formed(result: CompressionResult, video: Tensor) -> None:
    """Assert what holds for every method that drops nothing."""
    num_frames, size, width = video.shape
    assert result.tokens.shape == (result.num_kept, width)
    assert result.tokens.dtype == video.dtype
    assert result.tokens.device == video.device
    assert result.tokens.isfinite().all()
    assert result.num_input == num_frames * size
    assert result.num_input >= result.num_spatial >= result.num_kept >= 1
    assert result.component.shape == result.assignment.shape == (result.num_input,)
    assert result.sizes.tolist() == np.bincount(result.component.numpy(), minlength=result.num_kept).tolist()
    assert result.sizes.min() >= 1
    assert result.assignment.min() >= 0
    assert result.assignment.max() < result.num_kept
    frame = torch.arange(result.num_input) // size
    spans = [frame[result.component == k][[0, -1]].tolist() for k in range(result.num_kept)]
    assert result.frame_span.tolist() == spans


def assert_same_bytes(left: CompressionResult, right: CompressionResult) -> None:
    """Assert that two results do not differ in anything."""
    for name, value in vars(left).items():
        other = getattr(right, name)
        if isinstance(value, Tensor):
            assert torch.equal(value, other), name
        else:
            assert value == other, name
