from __future__ import annotations

from typing import get_args

import pytest
import torch

from llava_scissor.compression import Identity, Scissor, build_compressor
from llava_scissor.compression.baselines.pooling import Pooling
from llava_scissor.compression.baselines.random import RandomTokens
from llava_scissor.compression.baselines.uniform import UniformTokens
from llava_scissor.compression.protocol import TowerState, compress_with
from llava_scissor.compression.registry import COMPRESSORS
from llava_scissor.config import CompressionConfig
from llava_scissor.errors import ConfigError
from tests.compression.checks import assert_well_formed
from tests.compression.draws import draw, gaussian

NAMES = get_args(CompressionConfig.model_fields["method"].annotation)


def test_every_method_of_the_config_is_there():
    assert sorted(COMPRESSORS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_builds_a_compressor_that_works(name):
    video = draw(gaussian, 3, 4, 5)
    tower = TowerState(torch.ones(3, 4), torch.ones(3, 4, 2))
    result = compress_with(
        build_compressor(CompressionConfig(method=name, retention_ratio=0.5)), video, tower
    )
    assert result.num_kept == (12 if name in ("none", "fastv") else 6)
    if name in ("none", "scissor", "pooling"):
        assert_well_formed(result, video)


def test_settings_reach_the_compressor():
    scissor = CompressionConfig(tau=0.8, epsilon=0.1, seed=3)
    assert build_compressor(scissor) == Scissor(scissor)
    assert isinstance(build_compressor(CompressionConfig(method="none")), Identity)
    random = CompressionConfig(method="random", retention_ratio=0.2, seed=5)
    assert build_compressor(random) == RandomTokens(0.2, 5)
    assert build_compressor(random.model_copy(update={"method": "uniform"})) == UniformTokens(0.2)
    assert build_compressor(random.model_copy(update={"method": "pooling"})) == Pooling(0.2)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"none", "scissor"}))
def test_a_baseline_needs_a_ratio(name):
    config = CompressionConfig.model_construct(method=name, retention_ratio=None, seed=0)
    with pytest.raises(ConfigError, match=f"retention_ratio is required by compression.method = {name}"):
        build_compressor(config)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"none", "scissor", "fastv"}))
def test_the_tokens_of_every_baseline_can_keep_their_places(name):
    video, tower = (
        draw(gaussian, 5, 4, 6),
        TowerState(draw(gaussian, 5, 4, 1).abs()[..., 0], draw(gaussian, 5, 4, 2)),
    )
    config = CompressionConfig(method=name, retention_ratio=0.4)
    plain = compress_with(build_compressor(config), video, tower)
    placed_config = config.model_copy(update={"positions": "original"})
    placed = compress_with(build_compressor(placed_config), video, tower)
    assert plain.positions is None
    members = [(plain.component == k).nonzero().flatten().tolist() for k in range(plain.num_kept)]
    order = sorted(range(plain.num_kept), key=lambda k: sum(members[k]) / len(members[k]))
    assert placed.tokens.equal(plain.tokens[order])
    assert placed.positions.tolist() == [int(sum(members[k]) / len(members[k]) + 0.5) for k in order]
    assert placed.sizes.tolist() == [len(members[k]) for k in order]
    assert placed.frame_span.equal(plain.frame_span[order])
    new = {k: i for i, k in enumerate(order)} | {-1: -1}
    assert placed.component.tolist() == [new[k] for k in plain.component.tolist()]
    assert placed.assignment.tolist() == [new[k] for k in plain.assignment.tolist()]
