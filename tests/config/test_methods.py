from __future__ import annotations

import pickle

import pytest

from llava_scissor.config import (
    METHODS,
    Config,
    HoliTomConfig,
    ScissorConfig,
    to_dict,
)
from llava_scissor.errors import ConfigError
from tests.config.sections import compression


def test_a_preset_gives_what_is_not_given() -> None:
    recommended = ScissorConfig(preset="recommended")
    assert (recommended.temporal_window, recommended.positions) == (4, "original")
    own = compression(preset="recommended", temporal_window=None)
    assert (own.temporal_window, own.positions) == (None, "original")
    assert ScissorConfig(preset="paper") == ScissorConfig()


def test_a_preset_is_for_scissor_and_positions_are_for_all(caplog: pytest.LogCaptureFixture) -> None:
    config = compression(method="random", retention_ratio=0.1, positions="original")
    assert (config.positions, caplog.messages) == ("original", [])
    config = compression(method="random", retention_ratio=0.1, preset="recommended")
    assert config.positions == "consecutive"
    assert caplog.messages == [
        "compression.preset has no effect with compression.method 'random', only with scissor"
    ]


def test_a_preset_without_effect_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    compression(preset="recommended", method="none")
    assert caplog.messages == [
        "compression.preset has no effect with compression.method 'none', only with scissor"
    ]
    caplog.clear()
    compression(positions="original", temporal_window=2, method="none")
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("preset", ["best", None, 3, ["paper"]])
def test_another_preset_is_an_error(preset) -> None:
    with pytest.raises(ConfigError, match=r"preset: got .*, expected one of paper, recommended"):
        ScissorConfig(preset=preset)


@pytest.mark.parametrize("kind", METHODS.values(), ids=METHODS)
def test_settings_of_every_method(kind) -> None:
    """Each is a value, has a text for every key, and is what its keys in a file give."""
    values = {"retention_ratio": 0.25} if "retention_ratio" in kind.model_fields else {}
    config = kind(**values)
    assert config == kind(**values)
    assert hash(config) == hash(kind(**values))
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(ValueError, match="frozen"):
        config.images = True
    assert all(field.description for field in kind.model_fields.values())
    assert compression(method=config.method, **values) == config == compression(**to_dict(config))
    assert Config(compression=config).compression is config


def test_a_key_of_another_method_warns_unless_it_is_a_default(caplog) -> None:
    """Nobody's key is an error; a key of another method may come from a file made for that one."""
    keys = {"tau": None, "block_size": 7, "layer": 2, "static_threshold": 0.5}
    config = compression(method="uniform", retention_ratio=0.1, **keys)
    assert config == METHODS["uniform"](retention_ratio=0.1)
    assert caplog.messages == [
        f"compression.{key} has no effect with compression.method 'uniform', only with {knows}"
        for key, knows in (("block_size", "scissor"), ("static_threshold", "prunevid, holitom"))
    ]
    with pytest.raises(ConfigError, match=r"compression\.layr: unknown key, did you mean 'layer'"):
        compression(method="uniform", retention_ratio=0.1, layr=3)


@pytest.mark.parametrize(
    ("values", "threshold"),
    [
        ({"retention_ratio": 0.05}, 0.65),
        ({"retention_ratio": 0.1}, 0.65),
        ({"retention_ratio": 0.15}, 0.8),
        ({"retention_ratio": 0.5, "static_threshold": 0.3}, 0.3),
    ],
)
def test_the_threshold_of_holitom_follows_the_ratio(values, threshold) -> None:
    assert HoliTomConfig(**values).effective_static_threshold == threshold
