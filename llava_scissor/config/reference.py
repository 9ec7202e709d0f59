"""The text of docs/configuration.md, made from the schema so that the two cannot differ."""

from __future__ import annotations

import json

from pydantic.fields import FieldInfo

from llava_scissor.config.messages import allowed_values, section_of
from llava_scissor.config.schema import Config, Section

_INTRODUCTION = """\
# Configuration

<!-- Written by scripts/write_configuration_reference.py from llava_scissor/config/schema.py: edit there. -->

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
`CompressionConfig(retention_ratio=0.1)`.

Everything is checked before a model is loaded. An unknown key, a value of the wrong type or out of range, a
key given twice: each is an error that names the key, the line it is on and what is allowed.

- Types are not converted: `do_sample: "false"` is a text and an error, and so is `num_frames: 8.0`.
- Only `true` and `false` are booleans (`yes` and `on` are text), and `1e-3` is a number.
- `null` stands for the behaviour that the table describes.
- A key that has no effect next to the others, such as `temperature` without `do_sample`, is reported as a
  warning.

`configs/` has a file for the demo model and for each published checkpoint, and one for each retention ratio
of the paper.
"""


def render_reference() -> str:
    """Return docs/configuration.md: an introduction, then one table per section."""
    sections = [
        _render_section(name, section)
        for name, field in Config.model_fields.items()
        if (section := section_of(field)) is not None and issubclass(section, Section)
    ]
    return "\n".join([_INTRODUCTION, *sections])


def _render_section(name: str, section: type[Section]) -> str:
    summary = (section.__doc__ or "").partition(": ")[2].rstrip(".")
    rows = [
        f"| `{key}` | {allowed_values(field)} | `{_yaml_value(field.default)}` | {_one_line(field)} |"
        for key, field in section.model_fields.items()
    ]
    header = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
    return "\n".join([f"## `{name}`: {summary}", "", *header, *rows, ""])


def _one_line(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _yaml_value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
