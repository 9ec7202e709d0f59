"""Compressors by what is written in `llava-scissor eval --methods`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llava_scissor.compression import Compressor, Identity, build_compressor
from llava_scissor.config import METHODS, load_config
from llava_scissor.errors import ConfigError
from llava_scissor.results.answers import ALL_TOKENS, Method


def build_methods(names: Sequence[str], retentions: Iterable[float]) -> dict[Method, Compressor]:
    """Build each named compressor at each retention ratio, and the one that keeps all tokens.

    Args:
        names: of methods, as in `compression.method`, each with keys of its settings:
            `scissor:sample_size=64:seed=1`, `holitom:static_threshold=0.7`. `all` stands for
            every method without settings.
        retentions: retention ratios.

    Raises:
        ConfigError: there is no such method or setting.
    """
    methods: dict[Method, Compressor] = {ALL_TOKENS: Identity()}
    every = [name for name in METHODS if name != ALL_TOKENS[0]]
    for name in names:
        for one in every if name == "all" else {name} - {ALL_TOKENS[0]}:
            methods |= {(one, ratio): _build(one, ratio) for ratio in retentions}
    return methods


def _build(name: str, ratio: float) -> Compressor:
    method, *settings = name.split(":")
    if any(setting.partition("=")[0].strip() in ("method", "retention_ratio") for setting in settings):
        raise ConfigError(f"--methods {name}: expected settings other than method and retention_ratio")
    overrides = [f"method={method}", f"retention_ratio={ratio}", *settings]
    try:
        return build_compressor(load_config(None, [f"compression.{o}" for o in overrides]).compression)
    except ConfigError as error:
        raise ConfigError(f"--methods {name}: {error}") from None
