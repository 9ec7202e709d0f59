"""From a YAML file and `--set` overrides to a checked `Config`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from llava_scissor.config.messages import Key, config_error, nearest_key, sections_of, shown
from llava_scissor.config.schema import Config
from llava_scissor.config.section import Section
from llava_scissor.config.yaml_reader import explain_yaml_error, parse_yaml
from llava_scissor.errors import ConfigError

MAX_FILE_BYTES = 2**20

_Tree = dict[str, Any]


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read settings from a file, then apply the overrides.

    Args:
        path: a YAML file with any of the sections model, video, compression and generation; None or an empty
            file stands for the defaults.
        overrides: texts `section.key=value`, the value written as in YAML. They win over the file, and later
            ones win over earlier ones.

    Raises:
        ConfigError: for a file that cannot be read and for unknown keys and impossible values; one line per
            problem, each with the key and the line or override it comes from.
    """
    tree, origins = ({}, {}) if path is None else _read_file(Path(path))
    for override in overrides:
        section, key, value = _parse_override(override)
        keys = tree.setdefault(section, {})
        origins.setdefault((section,), f"--set {override}")
        if isinstance(keys, dict):  # else the section itself is reported as wrong
            keys[key] = value
            origins[section, key] = f"--set {override}"
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise config_error(error, Config, origins) from None


def sections_with(key: str) -> list[str]:
    """Return the names of the sections that have a key, whichever the compression method."""
    return [
        name
        for name, field in Config.model_fields.items()
        if any(key in section.model_fields for section in sections_of(field))
    ]


def to_dict(config: Section) -> dict[str, Any]:
    """Return the settings as plain nested dictionaries, ready for JSON."""
    return config.model_dump(mode="json")


def _read_file(path: Path) -> tuple[_Tree, dict[Key, str]]:
    try:
        value, lines = parse_yaml(_read_text(path))
    except yaml.YAMLError as error:
        where, problem = explain_yaml_error(error)
        raise ConfigError(f"{path}{where}: not valid YAML: {problem}") from None
    tree = {} if value is None else value
    if not isinstance(tree, dict):
        sections = ", ".join(Config.model_fields)
        raise ConfigError(f"{path}: got {shown(tree)}, expected a mapping with the sections {sections}")
    tree = {name: {} if keys is None else keys for name, keys in tree.items()}  # "video:", nothing below
    return tree, {key: f"{path}, line {line}" for key, line in lines.items()}


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the settings: {error.strerror}") from None
    except ValueError as error:  # a NUL byte in the name
        raise ConfigError(f"{str(path)!r}: not a file name: {error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than 1 MiB, which no settings file is")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8") from None


def _parse_override(override: str) -> tuple[str, str, Any]:
    name, equals, text = override.partition("=")
    section, _, key = name.strip().partition(".")
    if not (equals and section and key and "." not in key):
        guess = nearest_key(name.strip(), Config)
        example = f"{guess or 'compression.retention_ratio'}={text or '0.1'}"
        raise ConfigError(f"--set {override}: expected section.key=value, for example {example}")
    try:
        return section, key, parse_yaml(text)[0]
    except yaml.YAMLError as error:
        problem = explain_yaml_error(error)[1]
        raise ConfigError(f"--set {override}: the value is not valid YAML: {problem}") from None
