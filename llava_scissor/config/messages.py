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
TAG = "method"  # tells the sections of a union apart
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


def sections_of(field: FieldInfo) -> tuple[type[BaseModel], ...]:
    """Return the section classes that a field may hold: none for a plain value, several for a union."""
    kinds = get_args(field.annotation) or (field.annotation,)
    return tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))


def tag_of(section: type[BaseModel]) -> str:
    """Return the name that tells a section class of a union from the others: the default of its `method`."""
    return section.model_fields[TAG].default


def allowed_values(field: FieldInfo) -> str:
    """Describe in words what a field accepts, e.g. "a number above 0 and at most 1, or null"."""
    sections = sections_of(field)
    if len(sections) > 1:
        return f"a mapping with the key {TAG} and the keys of that {TAG}"
    if sections:
        return f"a mapping with keys of {', '.join(sections[0].model_fields)}"
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
        sections = sections_of(field)
        below = dict.fromkeys(key for section in sections for key in _keys_of(section))
        keys += [f"{name}.{key}" for key in below] if sections else [name]
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
    key, sections = _path(tuple(str(part) for part in details["loc"]), root)
    got, cause = details["input"], details.get("ctx", {}).get("error")
    if isinstance(cause, KeyConflictError):
        return f"{' and '.join(_located((*key, name), origins) for name in cause.keys)}: {cause}"
    if details["type"] == "union_tag_invalid":
        tags = [tag_of(section) for section in sections_of(sections[-1].model_fields[key[-1]])]
        key, got = (*key, TAG), got[TAG]
        return (
            f"{_located(key, origins)}: got {shown(got)}, expected one of {', '.join(tags)}{_hint(got, tags)}"
        )
    if details["type"] in ("extra_forbidden", "invalid_key"):
        return f"{_located(key, origins)}: {_unknown(key, sections[-1], root)}"
    field = sections[-1].model_fields[key[-1]]
    if details["type"] == "missing":
        tag = f", which {TAG} '{tag_of(sections[-1])}' needs" if TAG in sections[-1].model_fields else ""
        return f"{_located(key, origins)}: missing{tag}: expected {allowed_values(field)}"
    choices = get_args(_kind(field)) if get_origin(_kind(field)) is Literal else field.examples or ()
    hint = _hint(got, choices)
    return f"{_located(key, origins)}: got {shown(got)}, expected {allowed_values(field)}{hint}"


def _path(loc: Key, root: type[BaseModel]) -> tuple[Key, list[type[BaseModel]]]:
    """Return the key at a location, without the tags of unions, and the section of each of its parts."""
    key, sections, parts = [], [root], iter(loc)
    for part in parts:
        key.append(part)
        if part in sections[-1].model_fields:
            choices = sections_of(sections[-1].model_fields[part])
            tag = next(parts, None) if len(choices) > 1 else None
            below = choices if len(choices) == 1 else [c for c in choices if tag_of(c) == tag]
            sections += below[: len(loc) - 1]
    return tuple(key), sections[: max(1, len(key))]


def _located(key: Key, origins: Origins) -> str:
    origin = origins.get(key)
    name = ".".join(part if part.isprintable() and len(part) < 50 else reprlib.repr(part) for part in key)
    return name if origin is None else f"{name} ({origin})"


def _unknown(key: Key, section: type[BaseModel], root: type[BaseModel]) -> str:
    name = key[-1]
    elsewhere = [dotted for dotted in _keys_of(root) if _last_part(dotted) == name]
    alike = {k: None for own in _siblings(section, key, root) for k in own.model_fields}
    guess = elsewhere[0] if elsewhere else nearest(name, alike) or nearest_key(name, root)
    hint = f", did you mean '{guess}'?" if guess else "."
    noun = "section" if any(sections_of(field) for field in section.model_fields.values()) else "key"
    where = f" of {'.'.join(key[:-1])}" if len(key) > 1 else ""
    return f"unknown {noun}{hint} The {noun}s{where} are {', '.join(section.model_fields)}"


def _siblings(section: type[BaseModel], key: Key, root: type[BaseModel]) -> tuple[type[BaseModel], ...]:
    """Return the section and, if it is one of a union, the others."""
    field = root.model_fields.get(key[0]) if len(key) > 1 else None
    return (section, *(sections_of(field) if field else ()))


def _hint(got: object, choices: Iterable[str]) -> str:
    guess = nearest(got, choices) if isinstance(got, str) else None
    return f"; did you mean '{guess}'?" if guess else ""
