"""The same labels on a GPU as on a CPU, for videos whose similarities keep their distance from tau."""

from __future__ import annotations

import pytest
import torch

from llava_scissor.compression import Identity, ScissorConfig, compress
from llava_scissor.compression.baselines.pooling import Pooling
from llava_scissor.compression.baselines.random import RandomTokens
from llava_scissor.compression.baselines.uniform import UniformTokens
from tests.compression.checks import assert_same_bytes
from tests.compression.draws import KINDS, ROUNDING, draw, gaussian, smooth, with_zeros
from tests.reference import two_steps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("kind", [gaussian, smooth, with_zeros])
@pytest.mark.parametrize(
    "config",
    [
        ScissorConfig(tau=0.7),
        ScissorConfig(tau=0.7, sample_size=9),
        ScissorConfig(tau=0.7, temporal_window=2, positions="original"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_labels_are_those_of_the_cpu(kind, config, seed):
    video = draw(kind, 4, 16, 8, seed)
    on_cpu, on_gpu = compress(video, config), compress(video.cuda(), config)
    assert on_gpu.tokens.is_cuda
    if two_steps.compress(video.numpy(), 0.7).margin > ROUNDING:
        assert on_gpu.component.tolist() == on_cpu.component.tolist()
        assert on_gpu.assignment.tolist() == on_cpu.assignment.tolist()
        if on_cpu.positions is not None:
            assert on_gpu.positions.tolist() == on_cpu.positions.tolist()
        torch.testing.assert_close(on_gpu.tokens.cpu(), on_cpu.tokens, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.5, 0.99, 1.0])
def test_the_budget_is_met(kind, ratio):
    video = draw(kind, 4, 25, 8).cuda()
    assert compress(video, ScissorConfig(retention_ratio=ratio)).num_kept == max(1, int(ratio * 100))


@pytest.mark.parametrize("kind", [gaussian, smooth])
def test_the_same_bytes_every_time(kind):
    video = draw(kind, 8, 49, 64).cuda()
    for config in (ScissorConfig(tau=0.5), ScissorConfig(retention_ratio=0.1)):
        assert_same_bytes(compress(video, config), compress(video, config))


@pytest.mark.parametrize(
    "method",
    [
        Identity(),
        Pooling(retention_ratio=0.3),
        RandomTokens(retention_ratio=0.3),
        UniformTokens(retention_ratio=0.3),
    ],
)
def test_baselines_keep_the_same_tokens(method):
    video = draw(gaussian, 3, 16, 8)
    on_cpu, on_gpu = method(video), method(video.cuda())
    assert on_gpu.component.tolist() == on_cpu.component.tolist()
    torch.testing.assert_close(on_gpu.tokens.cpu(), on_cpu.tokens)
