"""The plain versions compute what the compressor computes; a bench against anything else says nothing."""

from __future__ import annotations

import pytest
import torch

from llava_scissor.bench.features import moving_regions
from llava_scissor.bench.plain_steps import compress_frame_by_frame, label_by_scipy, label_by_union_find
from llava_scissor.compression import compress
from llava_scissor.config import ScissorConfig


@pytest.mark.parametrize("label", [label_by_scipy, label_by_union_find])
@pytest.mark.parametrize("tau", [0.6, 0.9])
def test_the_same_tokens_are_kept(label, tau: float) -> None:
    tokens = moving_regions(3, 49, 64, torch.float32, torch.device("cpu"), seed=3)
    plain = compress_frame_by_frame(tokens, tau, label)
    ours = compress(tokens, ScissorConfig(tau=tau)).tokens
    assert 1 < len(plain) == len(ours) < 3 * 49
    # The plain versions do not put components in order.
    distance = torch.cdist(plain.double(), ours.double())
    assert distance.min(dim=1).values.max() < 1e-4
    assert distance.argmin(dim=1).unique().numel() == len(ours)


@pytest.mark.parametrize("label", [label_by_scipy, label_by_union_find])
def test_components_of_a_chain_and_a_lonely_vertex(label) -> None:
    linked = torch.eye(6, dtype=torch.bool)
    for one, other in [(0, 3), (3, 1), (1, 5)]:
        linked[one, other] = linked[other, one] = True
    labels = label(linked).tolist()
    assert labels[0] == labels[3] == labels[1] == labels[5]
    assert len({labels[0], labels[2], labels[4]}) == 3
