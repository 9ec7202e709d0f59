"""How a compressor gets its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, cast

from llava_scissor.config import MethodConfig
from llava_scissor.errors import ConfigError

C = TypeVar("C", bound=MethodConfig)


@dataclass(frozen=True, init=False)
class Configured(Generic[C]):
    """Base of the compressors that have settings. They are immutable, and equal if their settings are.

    `HoliTom(retention_ratio=0.1)` and `HoliTom(HoliTomConfig(retention_ratio=0.1))` are the same.

    Attributes:
        settings: the class of the settings, the same for all compressors of a class.
        config: the settings.
    """

    settings: ClassVar[type[MethodConfig]]
    config: C

    def __init__(self, config: C | None = None, **options: Any) -> None:
        """Take settings, or the options to make them from.

        Raises:
            ConfigError: an option is unknown, missing or out of range; settings of another method; both.
        """
        name, kind = type(self).__name__, self.settings
        if config is not None and options:
            raise ConfigError(f"{name}: expected either settings or options, got both")
        if config is not None and not isinstance(config, kind):
            raise ConfigError(
                f"{name}: expected a {kind.__name__}, or options such as "
                f"{name}(retention_ratio=0.1), got {config!r}"
            )
        object.__setattr__(self, "config", cast(C, kind(**options)) if config is None else config)
