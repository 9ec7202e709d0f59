"""The part of lmms-eval 0.7.3 that the model plugin uses, for where lmms-eval is not installed.

test_lmms_eval_harness.py compares it with the real one.
"""

from __future__ import annotations

import abc
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any


class lmms(abc.ABC):
    is_simple = True

    def __init__(self) -> None:
        self._rank = 0
        self._world_size = 1
        self.task_dict: dict = {}

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict | None = None):
        pairs = [pair.split("=", 1) for pair in arg_string.split(",") if pair]
        given = {key: value for key, value in (additional_config or {}).items() if value is not None}
        return cls(**{key: _parse(value) for key, value in pairs}, **given)

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._world_size


def _parse(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.isnumeric():
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


@dataclass
class TokenCounts:
    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass
class GenerationResult:
    text: str
    token_counts: TokenCounts | None = None


@dataclass
class Instance:
    request_type: str
    arguments: tuple
    idx: int
    metadata: dict = field(default_factory=dict)

    @property
    def args(self) -> tuple:
        return self.arguments


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


MODULES = {
    "lmms_eval": (),
    "lmms_eval.api": (),
    "lmms_eval.api.instance": (GenerationResult, Instance, TokenCounts),
    "lmms_eval.api.model": (lmms,),
    "lmms_eval.models": (),
    "lmms_eval.models.registry_v2": (ModelManifest,),
}


def install(monkeypatch) -> None:
    """Let `import lmms_eval...` find the stand-in, as long as the monkeypatch lasts."""
    for name, members in MODULES.items():
        module = ModuleType(name)
        for member in members:
            setattr(module, member.__name__, member)
        monkeypatch.setitem(sys.modules, name, module)
