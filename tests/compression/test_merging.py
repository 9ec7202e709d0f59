from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.compression import merging
from llava_scissor.compression.merging import mean_by_label, merge, sum_by_label
from tests.compression.draws import draw, gaussian, videos
from tests.reference import two_steps


@st.composite
def labelled(draw_value):
    """Tokens (n, D) and a label for each, every label in use."""
    tokens = draw_value(videos(max_size=10)).flatten(0, 1)
    count = draw_value(st.integers(1, len(tokens)))
    rest = draw_value(st.lists(st.integers(0, count - 1), min_size=len(tokens) - count, max_size=len(tokens)))
    labels = draw_value(st.permutations([*range(count), *rest[: len(tokens) - count]]))
    return tokens, torch.tensor(labels), count


def parts_of(labels, count):
    return [[i for i, label in enumerate(labels.tolist()) if label == k] for k in range(count)]


@given(labelled(), st.integers(1, 8))
def test_means_and_sums_are_those_of_two_loops(case, rows_each):
    tokens, labels, count = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "ROWS_EACH", rows_each)
        means = mean_by_label(tokens, labels, count)
        total, num_members = sum_by_label(tokens, labels, count)
    expected = two_steps.means(tokens.double().numpy(), parts_of(labels, count))
    np.testing.assert_allclose(means, expected, rtol=1e-5, atol=1e-5)
    assert num_members[:, 0].tolist() == torch.bincount(labels, minlength=count).tolist()
    # Sizes times means are all there is: nothing is lost, nothing counted twice.
    np.testing.assert_allclose((num_members * means).sum(0), tokens.double().sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(total, num_members * means, rtol=1e-5, atol=1e-5)


@given(labelled(), st.integers(1, 8))
def test_sums_of_converted_tokens_are_those_of_float32(case, rows_each):
    tokens, labels, count = case
    tokens = tokens.bfloat16()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "ROWS_EACH", rows_each)
        total, _ = sum_by_label(tokens, labels, count)
    assert torch.equal(total, sum_by_label(tokens.float(), labels, count)[0])


@given(labelled(), st.integers(1, 8), st.integers(0, 20))
def test_a_gpu_adds_the_pieces_of_a_label(case, piece, num_unused):
    tokens, labels, count = case
    expected, _ = sum_by_label(tokens.double(), labels, count)
    num_members = merging.count_labels(labels, count + num_unused)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "PIECE", piece)
        in_order = tokens[labels.argsort(stable=True)].float()
        total = merging._sum_segments(in_order, num_members)
    assert not total[count:].any()
    torch.testing.assert_close(total[:count], expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_in_float32(dtype):
    tokens = torch.full((3000, 2), 60000.0, dtype=dtype)
    mean = mean_by_label(tokens, torch.zeros(3000, dtype=torch.int64), 1)
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean, tokens[:1].float(), rtol=1e-5, atol=0)


def test_a_label_without_tokens_sums_to_nothing():
    total, num_members = sum_by_label(torch.ones(2, 3), torch.tensor([0, 2]), 4)
    assert num_members[:, 0].tolist() == [1, 0, 1, 0]
    assert total.sum(1).tolist() == [3, 0, 3, 0]


@given(labelled())
def test_the_merge_is_that_of_the_oracle(case):
    tokens, labels, count = case
    representatives = draw(gaussian, 1, count + 1, tokens.shape[1])[0]  # one more than is joined
    before = representatives.clone()
    found = merge(tokens, labels, representatives)
    expected = two_steps.merge(tokens.double().numpy(), labels.tolist(), representatives.double().numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[-1], representatives[-1])
    assert torch.equal(representatives, before)
