"""Compressing a video whose frames arrive one by one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from llava_scissor.compression.engines import ENGINES, Components
from llava_scissor.compression.merging import mean_by_label
from llava_scissor.compression.positions import numbers_in_order, with_positions
from llava_scissor.compression.protocol import CompressionResult, summarize
from llava_scissor.compression.scissor import compress
from llava_scissor.config import ScissorConfig
from llava_scissor.errors import ConfigError, InputError


@dataclass(frozen=True)
class StreamState:
    """The progress of a stream.

    Attributes:
        num_frames: frames pushed so far.
        num_waiting: how many of them wait for their window to be full.
        num_kept: tokens kept of the others.
    """

    num_frames: int
    num_waiting: int
    num_kept: int


class StreamingScissor:
    """Semantic Connected Components on windows of a stream.

    Frames wait until a window is full; then the window is compressed as a video of its own, and only its kept
    tokens stay. Without `window` the whole stream is one window, and the result is that of `compress`. With it, a
    retention ratio holds for each window, and tokens of different windows are not merged, unless `max_tokens` asks
    for it: whenever more tokens than that are kept, the most similar ones are merged, across all windows.
    A `temporal_window` is counted from the first frame of each window of the stream.

    Memory: the kept tokens, one window, and two integers for each token of the stream.
    """

    def __init__(
        self, config: ScissorConfig | None = None, window: int | None = None, max_tokens: int | None = None
    ):
        """Begin a stream.

        Args:
            config: as for `compress`; holds for each window.
            window: frames compressed together, at least 1; None for all.
            max_tokens: tokens kept at most of the whole stream, at least 1; None for no limit.

        Raises:
            ConfigError: `window` or `max_tokens` is below 1.
        """
        for name, value in (("window", window), ("max_tokens", max_tokens)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}; leave it out for no limit")
        self._config, self._window, self._max_tokens = config or ScissorConfig(), window, max_tokens
        self._waiting: list[Tensor] = []
        self._done: CompressionResult | None = None
        self._kind: tuple[torch.Size, torch.dtype, torch.device] | None = None
        self._num_frames = 0
        self._is_finished = False

    def push(self, frame: Float[Tensor, "p d"]) -> StreamState:
        """Take the next frame.

        Args:
            frame: its visual tokens (P, D), alike in shape, dtype and device for all frames; copied.

        Raises:
            InputError: the frame is not like the first, a token is not finite, or the stream is finished.
        """
        if self._is_finished:
            raise InputError("a finished stream takes no more frames; begin a new StreamingScissor")
        self._check(frame)
        self._waiting.append(frame.clone())
        self._num_frames += 1
        if len(self._waiting) == self._window:
            self._close_window()
        num_kept = 0 if self._done is None else self._done.num_kept
        return StreamState(self._num_frames, len(self._waiting), num_kept)

    def finish(self) -> CompressionResult:
        """Compress what still waits and return the result of the whole stream.

        Returns:
            As `compress`: tokens window after window, components and assignment numbered over the whole stream,
            and the lowest thresholds of a window as `tau` and `tau_spatial`.

        Raises:
            InputError: there was no frame, or the stream is finished already.
        """
        if self._is_finished or not self._num_frames:
            state = "is finished already" if self._is_finished else "has no frames"
            raise InputError(f"the stream {state}; push at least one frame, and finish once")
        if self._waiting:
            self._close_window()
        self._is_finished = True
        assert self._done is not None
        return self._done

    def _check(self, frame: Tensor) -> None:
        name = f"frame {self._num_frames}"
        if frame.ndim != 2 or not frame.is_floating_point() or frame.numel() == 0:
            raise InputError(
                f"{name} must be a non-empty floating tensor (tokens per frame, width), "
                f"got shape {tuple(frame.shape)} of {frame.dtype}"
            )
        kind = (frame.shape, frame.dtype, frame.device)
        self._kind = self._kind or kind
        if kind != self._kind:
            shape, dtype, device = self._kind
            raise InputError(
                f"{name} must be like the frames before it, {tuple(shape)} of {dtype} on {device}, "
                f"got {tuple(frame.shape)} of {frame.dtype} on {frame.device}"
            )
        is_finite = frame.float().isfinite().all(dim=1)
        if not bool(is_finite.all()):
            token = int((~is_finite).nonzero()[0])
            raise InputError(
                f"visual tokens must be finite in float32, got NaN or infinity at {name}, token {token}"
            )

    def _close_window(self) -> None:
        num_done, size = self._num_frames - len(self._waiting), len(self._waiting[0])
        window = compress(torch.stack(self._waiting), self._config)
        self._waiting.clear()
        self._done = window if self._done is None else _joined(self._done, window, num_done)
        if self._max_tokens is not None and self._done.num_kept > self._max_tokens:
            frames = window.tokens.new_empty(self._num_frames, size, 0)  # only their shape counts
            self._done = _merged(self._done, self._max_tokens, frames, self._config.block_size)


def _joined(before: CompressionResult, after: CompressionResult, num_frames: int) -> CompressionResult:
    """Concatenate the results of two parts of a stream; the first has `num_frames` frames."""

    def cat(name: str, shift: int = 0) -> Tensor:
        return torch.cat([getattr(before, name), getattr(after, name) + shift])

    def lower(name: str) -> float:
        return min(getattr(before, name), getattr(after, name))

    return CompressionResult(
        tokens=torch.cat([before.tokens, after.tokens]),
        assignment=cat("assignment", before.num_kept),
        component=cat("component", before.num_kept),
        sizes=cat("sizes"),
        frame_span=cat("frame_span", num_frames),
        num_input=before.num_input + after.num_input,
        num_spatial=before.num_spatial + after.num_spatial,
        tau=lower("tau"),
        tau_spatial=lower("tau_spatial"),
        positions=None if after.positions is None else cat("positions", before.num_input),
    )


def _merged(
    result: CompressionResult, count: int, frames: Float[Tensor, "f p 0"], block_size: int | None
) -> CompressionResult:
    """Merge the most similar kept tokens until `count` are left; each weighs as many tokens as it stands for."""
    engine = ENGINES["tiled"](ScissorConfig(block_size=block_size))
    vertices = engine.vertices(result.tokens[None])
    # Nothing is above 1, so that the clusters are in the order of their first tokens.
    found, _ = engine.single_linkage(vertices, count, low=0.95, high=1.0)
    if result.positions is not None:
        number = numbers_in_order(found.labels[result.component], count)
        found = Components(number[found.labels], count)
    weight = torch.bincount(result.assignment, minlength=result.num_kept)[:, None] + 1.0
    scale = 2.0 ** -(vertices.shift + int(weight.max()).bit_length())
    weighted = (result.tokens.double() * weight * scale).float()
    mean_weight = mean_by_label(weight.float(), found.labels, found.count)
    mean = mean_by_label(weighted, found.labels, found.count) / mean_weight
    tokens = (mean.double() / scale).to(result.tokens.dtype)
    labels = found.labels[result.component], found.labels[result.assignment]
    merged = summarize(frames, tokens, *labels, result.num_spatial, result.tau, result.tau_spatial)
    return merged if result.positions is None else with_positions(merged)
