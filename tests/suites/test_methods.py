from __future__ import annotations

import pytest
import torch

from llava_scissor.compression import Identity, Scissor
from llava_scissor.compression.baselines import FastV, PruneVid
from llava_scissor.config import METHODS
from llava_scissor.errors import ConfigError
from llava_scissor.results.answers import ALL_TOKENS
from llava_scissor.suites.methods import build_methods


def test_all_is_every_method_at_every_ratio() -> None:
    methods = build_methods(["all"], [0.5, 0.25])
    assert next(iter(methods)) == ALL_TOKENS
    assert set(methods) == {ALL_TOKENS} | {(n, r) for n in METHODS if n != "none" for r in (0.5, 0.25)}
    tokens = torch.randn(4, 16, 8, generator=torch.Generator().manual_seed(0))
    assert {(r, methods["random", r](tokens).num_kept) for r in (0.5, 0.25)} == {(0.5, 32), (0.25, 16)}


def test_a_method_may_have_settings() -> None:
    methods = build_methods(["none", "scissor:sample_size=7:seed=3"], [0.1])
    (_, full), (place, scissor) = methods.items()
    assert isinstance(full, Identity)
    assert place == ("scissor:sample_size=7:seed=3", 0.1)
    assert isinstance(scissor, Scissor)
    config = scissor.config
    assert (config.retention_ratio, config.sample_size, config.seed) == (0.1, 7, 3)


@pytest.mark.parametrize(
    ("name", "compressor"),
    [
        ("fastv:layer=3", FastV(retention_ratio=0.1, layer=3)),
        (
            "prunevid:positions=original:static_threshold=0.7",
            PruneVid(retention_ratio=0.1, positions="original", static_threshold=0.7),
        ),
    ],
)
def test_any_option_of_a_peer_can_be_set(name: str, compressor) -> None:
    assert build_methods([name], [0.1])[name, 0.1] == compressor


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scisor", r"--methods scisor: .*'scisor'"),
        ("scissor:tua=0.5", "--methods scissor:tua=0.5: .*tua"),
        ("scissor:retention_ratio=0.5", "expected settings other than method and retention_ratio"),
    ],
)
def test_what_is_no_method_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_methods([name], [0.1])
