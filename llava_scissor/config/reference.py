"""The text of docs/configuration.md, made from the schema so that the two cannot differ."""

from __future__ import annotations

import json

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llava_scissor.config.messages import TAG, allowed_values, sections_of, tag_of
from llava_scissor.config.schema import Config

_INTRODUCTION = """\
# Configuration

<!-- Written by scripts/write_configuration_reference.py from schema.py and methods.py in llava_scissor/config. -->

Settings are one YAML file with four sections, all of them optional: `model`, `video`, `compression` and
`generation`. A key that is not there has the default of the tables below.

```yaml
model: {path: BBBBCHAN/LLaVA-Scissor-baseline-7B}
video: {num_frames: 32}
compression:
  retention_ratio: 0.1   # keep exactly 10 % of the visual tokens
```

`--set section.key=value` changes one key for one run and wins over the file; the value is written as in YAML:

```
llava-scissor ask --video clip.mp4 --question "What happens?" --config configs/llava-scissor-7b.yaml \\
    --set compression.retention_ratio=0.1 --set video.num_frames=16
```

In Python the same file is `load_config("configs/demo.yaml", ["compression.retention_ratio=0.1"])`, and
each section is a class of `llava_scissor.config` whose keys are keyword arguments:
`VideoConfig(num_frames=16)`. The section `compression` has one class for each method:
`ScissorConfig(retention_ratio=0.1)`, `HoliTomConfig(retention_ratio=0.1, static_threshold=0.7)`.

Everything is checked before a model is loaded. An unknown key, a value of the wrong type or out of range, a
key given twice: each is an error that names the key, the line it is on and what is allowed.

- Types are not converted: `do_sample: "false"` is a text and an error, and so is `num_frames: 8.0`.
- Only `true` and `false` are booleans (`yes` and `on` are text), and `1e-3` is a number.
- `null` stands for the behaviour that the table describes.
- A key that has no effect next to the others, such as `temperature` without `do_sample`, is reported as a
  warning. So is a key of `compression` that belongs to another method than the one that is chosen.

`configs/` has a file for the demo model and for each published checkpoint.
"""


_HEADER = ("| key | allowed | default | meaning |", "|---|---|---|---|")


def render_reference() -> str:
    """Return docs/configuration.md: an introduction, one table per section, and one per compression method."""
    parts = [_INTRODUCTION]
    for name, field in Config.model_fields.items():
        sections = sections_of(field)
        if len(sections) == 1:
            parts.append(_render_section(f"## `{name}`: {_summary(sections[0])}", sections[0], set()))
        else:
            parts.append(_render_union(name, sections))
    return "\n".join(parts)


def _render_union(name: str, sections: tuple[type[BaseModel], ...]) -> str:
    common = set.intersection(*(set(section.model_fields) for section in sections))
    methods = ", ".join(f"`{tag_of(section)}`" for section in sections)
    shared = [_row(key, field) for key, field in sections[0].model_fields.items() if key in common - {TAG}]
    lead = [
        f"## `{name}`: which visual tokens reach the language model",
        "",
        f"The key `{TAG}` chooses the method and with it the other keys. The default is `{tag_of(sections[0])}`.",
        f"The methods are {methods}; [methods.md](methods.md) says what each does. All of them have:",
        "",
        *_HEADER,
        *shared,
        "",
    ]
    tables = [
        _render_section(f"### `{TAG}: {tag_of(section)}`", section, common)
        for section in sections
        if set(section.model_fields) - common
    ]
    return "\n".join([*lead, *tables])


def _render_section(title: str, section: type[BaseModel], without: set[str]) -> str:
    rows = [_row(key, field) for key, field in section.model_fields.items() if key not in without]
    return "\n".join([title, "", *_HEADER, *rows, ""])


def _row(key: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"`{_yaml_value(field.default)}`"
    return f"| `{key}` | {allowed_values(field)} | {default} | {_one_line(field)} |"


def _summary(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").partition(": ")[2].rstrip(".")


def _one_line(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _yaml_value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
