from __future__ import annotations

import pytest
import torch

from llava_scissor.compression import Identity, KeepPositions, Scissor, build_compressor
from llava_scissor.compression.baselines import FastV, HoliTom, RandomTokens, ToMe
from llava_scissor.compression.protocol import TowerState, compress_with
from llava_scissor.compression.registry import COMPRESSORS
from llava_scissor.config import METHODS, HoliTomConfig, NoCompressionConfig, RandomConfig, ScissorConfig
from llava_scissor.errors import ConfigError
from tests.compression.checks import assert_same_bytes, assert_well_formed
from tests.compression.draws import draw, gaussian


def settings_of(name: str, ratio: float):
    return METHODS[name](**({} if name == "none" else {"retention_ratio": ratio}))


def test_every_settings_class_has_a_compressor():
    assert set(COMPRESSORS) == set(METHODS.values())


@pytest.mark.parametrize("name", METHODS)
def test_all_settings_build_a_compressor_that_works(name):
    video = draw(gaussian, 3, 4, 5)
    tower = TowerState(torch.ones(3, 4), torch.ones(3, 4, 2))
    result = compress_with(build_compressor(settings_of(name, 0.5)), video, tower)
    assert result.num_kept == (12 if name in ("none", "fastv") else 6)
    if name in ("none", "scissor", "pooling"):
        assert_well_formed(result, video)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"none"}))
def test_options_and_settings_are_the_same(name):
    compressor = build_compressor(settings_of(name, 0.2))
    same = type(compressor)(retention_ratio=0.2)
    assert compressor == same
    assert hash(compressor) == hash(same)
    assert compressor != type(compressor)(retention_ratio=0.3)
    with pytest.raises(AttributeError, match="cannot assign to field 'config'"):
        compressor.config = same.config


def test_settings_reach_the_compressor():
    scissor = ScissorConfig(tau=0.8, epsilon=0.1, seed=3)
    assert build_compressor(scissor) == Scissor(scissor)
    assert isinstance(build_compressor(NoCompressionConfig()), Identity)
    random = RandomConfig(retention_ratio=0.2, seed=5)
    assert (
        build_compressor(random)
        == RandomTokens(retention_ratio=0.2, seed=5)
        != RandomTokens(retention_ratio=0.2)
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HoliTom(), "retention_ratio: missing, which method 'holitom' needs"),
        (lambda: HoliTom(retention_ratio=2), "retention_ratio: got 2, expected a number above 0"),
        (lambda: HoliTom(retention_ratio=0.1, tau=0.5), "tau: unknown key"),
        (lambda: HoliTom(0.1), r"HoliTom: expected a HoliTomConfig, or options .*, got 0.1"),
        (lambda: HoliTom(RandomConfig(retention_ratio=0.1)), "HoliTom: expected a HoliTomConfig"),
        (lambda: HoliTom(HoliTomConfig(retention_ratio=0.1), images=True), "either settings or options"),
    ],
)
def test_wrong_settings_are_explained(build, message, unchecked_shapes):
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"none", "scissor", "fastv"}))
def test_the_tokens_of_every_baseline_can_keep_their_positions(name):
    video, tower = (
        draw(gaussian, 5, 4, 6),
        TowerState(draw(gaussian, 5, 4, 1).abs()[..., 0], draw(gaussian, 5, 4, 2)),
    )
    config = METHODS[name](retention_ratio=0.4)
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


def test_positions_are_kept_by_a_compressor_around_another():
    video = draw(gaussian, 5, 4, 6)
    wrapped, built_in = (
        KeepPositions(ToMe(retention_ratio=0.4)),
        ToMe(retention_ratio=0.4, positions="original"),
    )
    assert_same_bytes(wrapped(video), built_in(video))
    assert wrapped(video).positions.tolist() == built_in(video).positions.tolist()
    with pytest.raises(ConfigError, match=r"got FastV.*use it as it is"):
        KeepPositions(FastV(retention_ratio=0.2))
