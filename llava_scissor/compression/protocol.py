"""What a compressor is: visual tokens of a video in, fewer tokens and their history out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from llava_scissor.compression.merging import count_labels
from llava_scissor.config import NoCompressionConfig
from llava_scissor.errors import InputError


@dataclass(frozen=True, eq=False)
class CompressionResult:
    """The kept tokens of one video and where every original token went.

    With N = F * P original tokens in frame-major, row-major order and K kept ones:

    Attributes:
        tokens: kept tokens (K, D) in the input's dtype and on its device, roughly in the order of the input.
        assignment: for each original token the kept token it was merged into, -1 if it was dropped (N,).
        component: for each original token the component it belongs to, numbered like `tokens`, -1 if none (N,).
        sizes: number of original tokens in each component (K,).
        frame_span: first and last frame of each component (K, 2).
        num_input: N.
        num_spatial: tokens after the spatial step; N for methods that have none.
        tau: similarity threshold, of the temporal step where the steps have their own; None for methods that have
            none.
        tau_spatial: threshold of the spatial step; None for methods that have none.
        positions: position of each kept token in the prompt, counted in 0..N-1 from the first visual token,
            ascending; what follows the video stands where it would with all N tokens (K,). None: the kept tokens
            and what follows them have consecutive positions.
    """

    tokens: Float[Tensor, "k d"]
    assignment: Int64[Tensor, " n"]
    component: Int64[Tensor, " n"]
    sizes: Int64[Tensor, " k"]
    frame_span: Int64[Tensor, "k 2"]
    num_input: int
    num_spatial: int
    tau: float | None
    tau_spatial: float | None = None
    positions: Int64[Tensor, " k"] | None = None

    @property
    def num_kept(self) -> int:
        """K, the number of kept tokens."""
        return self.tokens.shape[0]

    @property
    def retention_ratio(self) -> float:
        """Tokens kept / tokens before."""
        return self.num_kept / self.num_input


@runtime_checkable
class Compressor(Protocol):
    """Anything that turns the visual tokens of one video into fewer."""

    def __call__(self, tokens: Float[Tensor, "f p d"]) -> CompressionResult:
        """Compress one video.

        Args:
            tokens: visual tokens after projector and pooling, any floating dtype and device; not modified.

        Returns:
            At least one and at most F * P tokens.

        Raises:
            InputError: the tokens have another shape or dtype; from methods that compare tokens, also if one
                contains NaN or infinity.
        """
        ...


Stage = Literal["projector", "language_model"]
"""Where a compressor takes tokens away: behind the projector, or inside the language model."""


@runtime_checkable
class PromptPruner(Protocol):
    """A compressor of the stage `language_model`, which drops visual tokens after its first layers.

    It is a `Compressor`, too, which keeps every token: none is dropped before the language model.

    Attributes:
        stage: `language_model`.
        layer: number of layers that see all tokens, at least 1.
    """

    stage: ClassVar[Stage]

    @property
    def layer(self) -> int: ...  # noqa: D102

    def __call__(self, tokens: Float[Tensor, "f p d"]) -> CompressionResult:
        """Keep all tokens of one video."""
        ...

    def select(self, attention: Float[Tensor, " n"]) -> Int64[Tensor, " k"]:
        """Choose the visual tokens that the layers after `layer` see.

        Args:
            attention: of the last token of the prompt in the last of the first layers, mean over heads, to each
                visual token of the prompt.

        Returns:
            Their indices, ascending.
        """
        ...


def stage_of(compressor: Compressor) -> Stage:
    """Return the stage that a compressor declares; `projector` for a plain callable, which declares none."""
    return getattr(compressor, "stage", "projector")


@dataclass(frozen=True)
class Needs:
    """What a compressor looks at besides the visual tokens; nothing by default.

    Attributes:
        attention: `TowerState.attention`.
        keys: `TowerState.keys`.
    """

    attention: bool = False
    keys: bool = False


@dataclass(frozen=True, eq=False)
class TowerState:
    """What the last used block of the vision tower says about each visual token, resampled to the tokens' grid.

    Attributes:
        attention: attention received, float32: mean over heads and queries (F, P).
        keys: keys, mean over heads, float32 (F, P, D_k).
    """

    attention: Float[Tensor, "f p"] | None = None
    keys: Float[Tensor, "f p _k"] | None = None


@runtime_checkable
class TowerCompressor(Protocol):
    """A compressor that also looks at the state of the vision tower, and declares which part of it."""

    needs: ClassVar[Needs]

    def __call__(self, tokens: Float[Tensor, "f p d"], tower: TowerState | None = None) -> CompressionResult:
        """Compress one video as a `Compressor`.

        Raises:
            InputError: as a `Compressor`; also if something that is needed is not given.
        """
        ...


def needs_of(*compressors: Compressor) -> Needs:
    """Return what any of some compressors declares to need; nothing if none declares anything."""
    all_needs = [c.needs for c in compressors if isinstance(c, TowerCompressor)]
    return Needs(any(needs.attention for needs in all_needs), any(needs.keys for needs in all_needs))


def compress_with(
    compressor: Compressor, tokens: Float[Tensor, "f p d"], tower: TowerState | None = None
) -> CompressionResult:
    """Call a compressor, with the state of the vision tower if it needs some of it."""
    if isinstance(compressor, TowerCompressor) and compressor.needs != Needs():
        return compressor(tokens, tower)
    return compressor(tokens)


class Identity:
    """The compressor that keeps every token as it is."""

    settings = NoCompressionConfig

    def __init__(self, config: NoCompressionConfig | None = None) -> None:
        """Take settings, of which none has an effect on the tokens."""

    def __call__(self, tokens: Float[Tensor, "f p d"]) -> CompressionResult:
        """Return all tokens in their order, without a copy."""
        check_tokens(tokens)
        everything = torch.arange(tokens.shape[0] * tokens.shape[1], device=tokens.device)
        return summarize(tokens, tokens.flatten(0, 1), everything, everything)


def check_tokens(tokens: Tensor) -> None:
    """Raise InputError unless `tokens` is a non-empty floating tensor (F, P, D)."""
    if tokens.ndim != 3 or not tokens.is_floating_point() or tokens.numel() == 0:
        raise InputError(
            f"visual tokens must be a non-empty floating tensor (frames, tokens per frame, width), "
            f"got shape {tuple(tokens.shape)} of {tokens.dtype}; add or merge axes, or convert, before compressing"
        )


def check_tower(tokens: Tensor, compressor: TowerCompressor, tower: TowerState | None) -> TowerState:
    """Return the state, empty if nothing is needed and given.

    Raises:
        InputError: something that is needed is missing, of another shape, or not finite.
    """
    tower = tower or TowerState()
    for name in (name for name, is_needed in vars(compressor.needs).items() if is_needed):
        value = getattr(tower, name)
        if value is None or value.shape[:2] != tokens.shape[:2] or not bool(value.isfinite().all()):
            got = "none" if value is None else f"shape {tuple(value.shape)}, or values that are not finite"
            raise InputError(
                f"{type(compressor).__name__} needs the {name} of the vision tower, finite and of shape "
                f"{tuple(tokens.shape[:2])}{' + (width,)' * (name == 'keys')}, got {got}: give the state that "
                f"`OneVision.encode_video_with` returns beside the tokens, or tower=TowerState({name}=...)"
            )
    return tower


def summarize(
    inputs: Float[Tensor, "f p _d"],
    tokens: Float[Tensor, "k d"],
    component: Int64[Tensor, " n"],
    assignment: Int64[Tensor, " n"],
    num_spatial: int | None = None,
    tau: float | None = None,
    tau_spatial: float | None = None,
) -> CompressionResult:
    """Build a result; sizes and frame spans follow from the components. Only the shape of `inputs` is used."""
    num_frames, tokens_per_frame, _ = inputs.shape
    num_input, num_kept = num_frames * tokens_per_frame, tokens.shape[0]
    frame = torch.arange(num_input, device=inputs.device) // tokens_per_frame
    # Tokens without a component are counted in an extra row that is cut off.
    row = component.where(component >= 0, num_kept)
    span = [
        frame.new_zeros(num_kept + 1).scatter_reduce(0, row, frame, end, include_self=False)
        for end in ("amin", "amax")
    ]
    return CompressionResult(
        tokens=tokens,
        assignment=assignment,
        component=component,
        sizes=count_labels(row, num_kept + 1)[:num_kept],
        frame_span=torch.stack(span, dim=1)[:num_kept],
        num_input=num_input,
        num_spatial=num_input if num_spatial is None else num_spatial,
        tau=tau,
        tau_spatial=tau_spatial,
    )
