from __future__ import annotations

import math

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.compression import Compressor, Identity, Scissor, ScissorConfig, compress
from llava_scissor.compression.baselines.fastv import FastV
from llava_scissor.compression.protocol import check_tokens, stage_of, summarize
from llava_scissor.config.visual_budget import budget
from llava_scissor.errors import InputError
from tests.compression.checks import assert_well_formed
from tests.compression.draws import draw, gaussian


@pytest.mark.parametrize(
    ("tokens", "got"),
    [
        (torch.ones(4, 3), r"\(4, 3\) of torch.float32"),
        (torch.ones(1, 4, 2, 3), r"\(1, 4, 2, 3\) of torch.float32"),
        (torch.ones(2, 4, 3, dtype=torch.int64), r"\(2, 4, 3\) of torch.int64"),
        (torch.ones(2, 4, 3, dtype=torch.complex64), r"\(2, 4, 3\) of torch.complex64"),
        (torch.ones(0, 4, 3), r"\(0, 4, 3\) of torch.float32"),
        (torch.ones(2, 0, 3), r"\(2, 0, 3\) of torch.float32"),
        (torch.ones(2, 4, 0), r"\(2, 4, 0\) of torch.float32"),
    ],
)
@pytest.mark.parametrize("check", [check_tokens, Identity(), Scissor(ScissorConfig())])
def test_wrong_tensors_are_refused(tokens, got, check, unchecked_shapes):
    with pytest.raises(InputError, match=f"non-empty floating tensor .* got shape {got}; add or merge axes"):
        check(tokens)


def test_a_compressor_says_its_stage_and_a_plain_callable_is_behind_the_projector():
    assert stage_of(FastV(retention_ratio=0.5)) == "language_model"
    for compressor in (Identity(), Scissor(ScissorConfig()), lambda tokens: Identity()(tokens)):
        assert stage_of(compressor) == "projector"


def test_signatures_are_checked_under_test():
    with pytest.raises(jaxtyping.TypeCheckError, match="Float"):
        compress(torch.ones(4, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_identity_keeps_every_bit(dtype):
    video = draw(gaussian, 3, 4, 5).to(dtype)
    result = Identity()(video)
    assert result.tokens.dtype == dtype
    assert torch.equal(result.tokens, video.reshape(12, 5))
    assert result.assignment.tolist() == result.component.tolist() == list(range(12))
    assert (result.num_input, result.num_spatial, result.num_kept, result.tau) == (12, 12, 12, None)
    assert result.retention_ratio == 1.0
    assert_well_formed(result, video)


def test_identity_accepts_a_view():
    video = draw(gaussian, 4, 3, 5).transpose(0, 1)
    assert torch.equal(Identity()(video).tokens, video.reshape(12, 5))


@pytest.mark.parametrize("compressor", [Identity(), Scissor(ScissorConfig())])
def test_compressors_are_recognised(compressor):
    assert isinstance(compressor, Compressor)


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 10**6))
def test_budget(ratio, num_tokens):
    assert budget(ratio, num_tokens) == max(1, math.floor(ratio * num_tokens))
    assert 1 <= budget(ratio, num_tokens) <= num_tokens


def test_a_summary_counts_tokens_and_frames():
    component = torch.tensor([0, 2, 0, -1, 1, 2, -1, -1, 2])
    assignment = torch.tensor([0, 2, 1, -1, 1, 2, -1, -1, 0])
    result = summarize(torch.ones(3, 3, 2), torch.ones(3, 2), component, assignment, 5, 0.7)
    assert result.sizes.tolist() == [2, 1, 3]
    assert result.frame_span.tolist() == [[0, 0], [1, 1], [0, 2]]
    assert (result.num_input, result.num_spatial, result.num_kept, result.tau) == (9, 5, 3, 0.7)
    assert result.retention_ratio == 3 / 9
    assert torch.equal(result.assignment, assignment)


def test_a_summary_without_a_spatial_step_counts_all():
    everything = torch.arange(4)
    result = summarize(torch.ones(2, 2, 1), torch.ones(4, 1), everything, everything)
    assert (result.num_spatial, result.tau) == (4, None)
