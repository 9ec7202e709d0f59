"""What a user reads about a setting: the values it allows, and every problem of a config, one line each."""

from __future__ import annotations

import difflib
import json
import reprlib
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from llava_scissor.errors import ConfigError

Key = tuple[str, ...]  # ("compression", "tau")
Origins = Mapping[Key, str]  # where a key was written: "demo.yaml, line 7" or "--set compression.tau=2"


class KeyConflictError(ValueError):
    """Raised inside a section when values are fine one by one and wrong together."""

    def __init__(self, keys: tuple[str, ...], problem: str) -> None:
        super().__init__(problem)
        self.keys = keys


def config_error(error: ValidationError, root: type[BaseModel], origins: Origins) -> ConfigError:
    """Turn a validation error of `root` into a `ConfigError` with one line per problem."""
    return ConfigError("\n".join(_problem(details, root, origins) for details in error.errors()))


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that looks most like `name`, or None when none is close."""
    by_lower_case = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.4)
    return by_lower_case[close[0]] if close else None


def nearest_key(name: str, root: type[BaseModel]) -> str | None:
    """Return the dotted key below `root` that `name`, with or without a section, most likely stands for."""
    keys = _keys_of(root)
    if name in keys:
        return name
    by_last_part = {_last_part(key): key for key in keys}
    last_part = nearest(_last_part(name), by_last_part)
    return by_last_part[last_part] if last_part else None


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field holds, or None for a plain value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def allowed_values(field: FieldInfo) -> str:
    """Describe in words what a field accepts, e.g. "a number above 0 and at most 1, or null"."""
    section = section_of(field)
    if section is not None:
        return f"a mapping with keys of {', '.join(section.model_fields)}"
    kind = _kind(field)
    if get_origin(kind) is Literal:
        text = f"one of {', '.join(get_args(kind))}"
    elif kind is bool:
        text = "true or false"
    elif kind is str:
        text = f"text such as {', '.join(field.examples)}" if field.examples else "text that is not empty"
    elif get_origin(kind) is tuple:
        text = "a list of texts that are not empty"
    else:
        text = f"{'an integer' if kind is int else 'a number'}{_bounds(field)}"
    return f"{text}, or null" if kind is not field.annotation else text


def shown(value: object) -> str:
    """Name a value that was got, in YAML's words and never longer than a line."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return reprlib.repr(value)
    if isinstance(value, str):
        return f"the text {reprlib.repr(value)}"
    return {dict: "a mapping", list: "a list"}.get(type(value), f"a {type(value).__name__}")


def _keys_of(model: type[BaseModel]) -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        section = section_of(field)
        keys += [name] if section is None else [f"{name}.{key}" for key in _keys_of(section)]
    return keys


def _last_part(key: str) -> str:
    return key.rpartition(".")[2]


def _kind(field: FieldInfo) -> Any:
    members = get_args(field.annotation)
    return members[0] if NoneType in members else field.annotation


def _bounds(field: FieldInfo) -> str:
    limits: dict[type, Any] = {type(limit): limit for limit in field.metadata}
    low = f"above {limits[Gt].gt}" if Gt in limits else f"of at least {limits[Ge].ge}" if Ge in limits else ""
    if Ge in limits and Le in limits:
        return f" from {limits[Ge].ge} to {limits[Le].le}"
    return " ".join(["", *filter(None, [low, f"and at most {limits[Le].le}" if Le in limits else ""])])


def _problem(details: Any, root: type[BaseModel], origins: Origins) -> str:
    key: Key = tuple(str(part) for part in details["loc"])
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, KeyConflictError):
        return f"{' and '.join(_located((*key, name), origins) for name in cause.keys)}: {cause}"
    section = _section_at(root, key[:-1])
    if details["type"] in ("extra_forbidden", "invalid_key"):
        return f"{_located(key, origins)}: {_unknown(key, section, root)}"
    field = section.model_fields[key[-1]]
    got = details["input"]
    hint = _choice_hint(got, field)
    return f"{_located(key, origins)}: got {shown(got)}, expected {allowed_values(field)}{hint}"


def _located(key: Key, origins: Origins) -> str:
    origin = origins.get(key)
    name = ".".join(part if part.isprintable() and len(part) < 50 else reprlib.repr(part) for part in key)
    return name if origin is None else f"{name} ({origin})"


def _section_at(root: type[BaseModel], key: Key) -> type[BaseModel]:
    for name in key:
        section = section_of(root.model_fields[name])
        root = section if section is not None else root
    return root


def _unknown(key: Key, section: type[BaseModel], root: type[BaseModel]) -> str:
    name = key[-1]
    elsewhere = [dotted for dotted in _keys_of(root) if _last_part(dotted) == name]
    guess = elsewhere[0] if elsewhere else nearest(name, section.model_fields) or nearest_key(name, root)
    hint = f", did you mean '{guess}'?" if guess else "."
    noun = "section" if any(section_of(field) for field in section.model_fields.values()) else "key"
    where = f" of {'.'.join(key[:-1])}" if len(key) > 1 else ""
    return f"unknown {noun}{hint} The {noun}s{where} are {', '.join(section.model_fields)}"


def _choice_hint(got: object, field: FieldInfo) -> str:
    kind = _kind(field)
    choices = get_args(kind) if get_origin(kind) is Literal else field.examples or ()
    guess = nearest(got, choices) if isinstance(got, str) else None
    return f"; did you mean '{guess}'?" if guess else ""
