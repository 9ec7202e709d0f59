"""Errors that a user can cause, one leaf for each kind of input.

Every message says what was got, what was expected and what to do about it.
"""


class ScissorError(Exception):
    """Base of every error that this package raises for a user's mistake."""


class ConfigError(ScissorError, ValueError):
    """A configuration key or value that cannot be used."""


class InputError(ScissorError, ValueError):
    """A tensor, question or argument of the wrong shape, type or content."""


class VideoError(ScissorError):
    """A video that cannot be opened, decoded or sampled."""


class ImageError(ScissorError):
    """An image that cannot be opened or decoded."""


class CheckpointError(ScissorError):
    """A checkpoint directory that is incomplete, unsupported or damaged."""


class MissingDependencyError(ScissorError, ImportError):
    """An optional package that a requested feature needs and that is not installed."""
