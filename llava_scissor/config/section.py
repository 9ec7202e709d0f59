"""What every settings class has in common."""

from __future__ import annotations

import logging
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from llava_scissor.config.messages import config_error

logger = logging.getLogger(__name__)

MAX_SEED = 2**63 - 1  # what torch.Generator.manual_seed takes


class Section(BaseModel):
    """Base of every settings object: frozen, hashable, no unknown keys, no conversion between types.

    The text below a field is its description in docs/configuration.md.

    Raises:
        ConfigError: on construction, with one line per unknown key or impossible value.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise config_error(error, type(self), {}) from None

    # A section inside another is then checked by the outer one, whose message names the dotted key.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def warn_without_effect(section: Section, name: str, keys: set[str], reason: str) -> None:
    """Log a warning for each of some keys of a section that differs from its default."""
    for key, field in type(section).model_fields.items():
        if key in keys and getattr(section, key) != field.default:
            logger.warning("%s.%s has no effect %s", name, key, reason)
