from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from llava_scissor import VisualBudget, visual_budget
from llava_scissor.compression import build_compressor
from llava_scissor.compression.protocol import TowerState, compress_with
from llava_scissor.config import METHODS, ScissorConfig
from llava_scissor.errors import InputError

FRAMES, TOKENS = 5, 16


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, VisualBudget(80, is_exact=False)),
        ({"tau": 0.3}, VisualBudget(80, is_exact=False)),
        ({"retention_ratio": 0.33}, VisualBudget(26, is_exact=True)),
        ({"retention_ratio": 0.001}, VisualBudget(1, is_exact=True)),
        ({"retention_ratio": 0.33, "tau": 0.3}, VisualBudget(26, is_exact=False)),
        ({"method": "none"}, VisualBudget(80, is_exact=True)),
        ({"method": "uniform", "retention_ratio": 0.33}, VisualBudget(26, is_exact=True)),
        ({"method": "fastv", "retention_ratio": 0.5}, VisualBudget(40, is_exact=True)),
    ],
)
def test_numbers_and_bounds(settings, expected):
    settings = dict(settings)
    assert visual_budget(METHODS[settings.pop("method", "scissor")](**settings), FRAMES, TOKENS) == expected


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"fastv", "none"}))
@pytest.mark.parametrize("ratio", [0.07, 0.33, 1.0])
def test_compressors_keep_to_it(method, ratio):
    config = METHODS[method](retention_ratio=ratio)
    drawn = torch.Generator().manual_seed(0)
    tokens = torch.randn(FRAMES, TOKENS, 8, generator=drawn)
    tower = TowerState(torch.rand(FRAMES, TOKENS, generator=drawn), torch.randn(FRAMES, TOKENS, 4))
    kept = compress_with(build_compressor(config), tokens, tower).num_kept
    assert visual_budget(config, FRAMES, TOKENS) == VisualBudget(kept, is_exact=True)


@pytest.mark.parametrize("tau", [-1.0, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("ratio", [None, 0.25])
def test_a_threshold_keeps_to_the_bound(tau, ratio):
    config = ScissorConfig(tau=tau, retention_ratio=ratio)
    tokens = torch.randn(FRAMES, TOKENS, 8, generator=torch.Generator().manual_seed(0))
    bound = visual_budget(config, FRAMES, TOKENS)
    assert not bound.is_exact
    assert 1 <= build_compressor(config)(tokens).num_kept <= bound.num_tokens


@pytest.mark.parametrize(("frames", "tokens"), [(0, 16), (5, 0)])
def test_nothing_has_no_budget(frames, tokens):
    with pytest.raises(InputError, match=f"got {frames} frames of {tokens} visual tokens"):
        visual_budget(ScissorConfig(), frames, tokens)


def test_it_needs_no_torch():
    code = (
        "import sys\nfrom llava_scissor import Config, visual_budget\n"
        "visual_budget(Config().compression, 32, 196)\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
