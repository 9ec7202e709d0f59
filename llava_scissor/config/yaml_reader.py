"""Strict YAML: what a settings file needs and nothing that could surprise or hurt."""

from __future__ import annotations

import re
import reprlib
from typing import Any

import yaml
from yaml.composer import ComposerError

MAX_DEPTH = 20

Lines = dict[tuple[str, ...], int]  # line number of the keys of the first two levels

_PLAIN_VALUES = {
    "null": r"(~|null|Null|NULL|)$",
    "bool": r"(true|True|TRUE|false|False|FALSE)$",
    "int": r"[-+]?(0|[1-9][0-9]{0,299})$",
    "float": r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$",
}


class StrictLoader(yaml.SafeLoader):
    """A `SafeLoader` which refuses duplicate keys, tags and shared collections.

    As in YAML 1.2 only true, false, null and decimal numbers are not text: `1e-3` is a number, while `no` and
    `2024-01-01` are text. Keys are always text.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose the next node; refuse tags, collections by alias, and nesting deeper than `MAX_DEPTH`."""
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            raise ComposerError(None, None, "tags (!name) are not allowed", event.start_mark)
        if self._depth == MAX_DEPTH:
            raise ComposerError(None, None, f"nested more than {MAX_DEPTH} levels deep", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent) and not isinstance(node, yaml.ScalarNode):
            problem = f"*{event.anchor} repeats a collection: write it out"
            raise ComposerError(None, None, problem, event.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping; refuse keys that are not plain text and keys that occur twice."""
        node = super().compose_mapping_node(anchor)
        first_lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ComposerError(None, None, "a key must be plain text", key.start_mark)
            if key.value in first_lines:
                first_line = first_lines[key.value]
                problem = f"the key {reprlib.repr(key.value)} is there twice, first on line {first_line}"
                raise ComposerError(None, None, problem, key.start_mark)
            first_lines[key.value] = key.start_mark.line + 1
            key.tag = "tag:yaml.org,2002:str"
        return node


StrictLoader.yaml_implicit_resolvers = {
    None: [(f"tag:yaml.org,2002:{kind}", re.compile(form)) for kind, form in _PLAIN_VALUES.items()]
}


def parse_yaml(text: str) -> tuple[Any, Lines]:
    """Parse one YAML document; return its value (None if empty) and the line of each key.

    Raises:
        yaml.YAMLError: for anything that is not one well-formed document, see `explain_yaml_error`.
    """
    loader = StrictLoader(text)
    try:
        node = loader.get_single_node()
        return (None, {}) if node is None else (loader.construct_document(node), _lines(node, ()))
    finally:
        loader.dispose()


def explain_yaml_error(error: yaml.YAMLError) -> tuple[str, str]:
    """Return where a YAML error is (", line 2, column 5" or nothing) and what it is."""
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
    return where, getattr(error, "problem", None) or str(error).splitlines()[0]


def _lines(node: yaml.Node, prefix: tuple[str, ...]) -> Lines:
    if not isinstance(node, yaml.MappingNode) or len(prefix) == 2:
        return {}
    lines: Lines = {}
    for key, value in node.value:
        lines[*prefix, key.value] = key.start_mark.line + 1
        lines |= _lines(value, (*prefix, key.value))
    return lines
