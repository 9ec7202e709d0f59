"""The same labels on a GPU as on a CPU, for videos whose similarities keep their distance from tau."""

from __future__ import annotations

import warnings

import pytest
import torch

from llava_scissor.compression import Identity, ScissorConfig, compress, scissor
from llava_scissor.compression.baselines.pooling import Pooling
from llava_scissor.compression.baselines.random import RandomTokens
from llava_scissor.compression.baselines.uniform import UniformTokens
from llava_scissor.compression.on_device import compress_on_device
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


@pytest.mark.parametrize("options", [{}, {"preset": "recommended"}])
def test_the_host_waits_once_at_a_threshold(options):
    video, config = draw(gaussian, 8, 49, 64).cuda(), ScissorConfig(tau=0.5, **options)
    compress(video, config)
    torch.set_warn_always(True)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            compress_on_device(video, config)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.set_warn_always(False)
    assert len([warning for warning in seen if "synchronizing" in str(warning.message)]) == 1


@pytest.mark.parametrize("config", [ScissorConfig(tau=0.5), ScissorConfig(retention_ratio=0.1)])
def test_at_once_is_the_general_way(monkeypatch, config):
    video = draw(smooth, 8, 49, 64).cuda()
    at_once = compress_on_device(video, config)
    monkeypatch.setattr(scissor, "fits", lambda tokens, config: False)
    assert compress(video, config).component.tolist() == at_once.component.tolist()


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
