"""What is written for a GPU, on a CPU: the same results, and a host that does not wait for every frame."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llava_scissor.compression import ScissorConfig, compress, precision
from tests.compression.draws import KINDS, draw, gaussian, smooth

CONFIGS = {
    "tau": ScissorConfig(tau=0.8),
    "budget": ScissorConfig(retention_ratio=0.3),
    "both": ScissorConfig(tau=0.9, retention_ratio=0.2),
    "sampled": ScissorConfig(tau=0.8, sample_size=7),
    "sampled budget": ScissorConfig(retention_ratio=0.3, sample_size=7),
    "recommended": ScissorConfig(preset="recommended", retention_ratio=0.3),
}


def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(precision, "on_cpu", lambda device: False)
    monkeypatch.setattr(precision, "fast_dtype", lambda device: torch.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_way_of_a_gpu_leads_to_the_same_result(monkeypatch, kind, config):
    video = draw(kind, 17, 9, 12)
    expected = compress(video, config)
    as_on_a_gpu(monkeypatch)
    found = compress(video, config)
    assert torch.equal(found.component, expected.component)
    assert torch.equal(found.assignment, expected.assignment)
    assert found.tau == expected.tau
    torch.testing.assert_close(found.tokens, expected.tokens, rtol=1e-5, atol=1e-6)


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


def count_waits(video, config):
    with Waits() as waits:
        compress(video, config)
    return waits.count.total()


@pytest.mark.parametrize(("kind", "config"), [(gaussian, "tau"), (smooth, "tau"), (gaussian, "sampled")])
def test_the_host_does_not_wait_for_every_frame(monkeypatch, kind, config):
    as_on_a_gpu(monkeypatch)
    few, many = (count_waits(draw(kind, frames, 16, 12), CONFIGS[config]) for frames in (4, 64))
    assert many <= few + 25  # 60 frames more; labels of larger components take some rounds more


def test_the_host_waits_for_every_frame_in_a_loop_over_frames():
    def look_at_each(video):
        for frame in video:
            bool((frame > 0).any())

    with Waits() as waits:
        look_at_each(draw(gaussian, 64, 16, 12))
    assert waits.count.total() == 64
