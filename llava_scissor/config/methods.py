"""The settings of each compression method: one class per method, and their union, which `method` tells apart."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, model_validator

from llava_scissor.config.messages import KeyConflictError
from llava_scissor.config.section import MAX_SEED, Section, warn_without_effect

logger = logging.getLogger(__name__)

DEFAULT_TAU = 0.9

RECOMMENDED = {"temporal_window": 4, "positions": "original"}
"""Values of the preset for keys that are not given themselves; docs/quality.md has the measurements."""


class MethodConfig(Section):
    """Base of the settings of all methods. Each subclass has its name as the only value of `method`."""

    images: bool = False
    """Whether images are compressed, too. false: they keep all their tokens, only videos are compressed."""


class ScissorConfig(MethodConfig):
    """Semantic connected components; without `tau` and `retention_ratio`, tau is 0.9."""

    method: Literal["scissor"] = "scissor"
    """The method of this package."""

    preset: Literal["paper", "recommended"] = "paper"
    """paper: the published method. recommended: temporal_window 4 and positions original, which keep when
    something happened; keys that are given win over the preset."""

    tau: float | None = Field(default=None, ge=-1, le=1)
    """Similarity threshold: two tokens are connected if their cosine similarity is above it. Without tau and
    retention_ratio it is 0.9."""

    retention_ratio: float | None = Field(default=None, gt=0, le=1)
    """Share r of the N tokens to keep. Alone: exactly max(1, floor(r N)) tokens stay. Together with tau: at
    most that many."""

    temporal_window: int | None = Field(default=None, ge=1)
    """Frames between which the temporal step joins tokens: frames 0 .. w-1, w .. 2w-1 and so on; 1: none
    across frames. A retention_ratio joins tokens of different windows only after all of the same. Null: all
    frames."""

    positions: Literal["consecutive", "original"] = "consecutive"
    """Where kept tokens stand in the prompt. consecutive: one after the other. original: each at the mean
    position of the tokens that it stands for, sorted by it; the rest of the prompt stands where it would with
    all tokens."""

    epsilon: float | None = Field(default=None, gt=0, le=1)
    """Error tolerance of the approximate component search, which looks at ceil(ln(n) / epsilon^2) of n
    tokens. Null: exact components. Not together with sample_size."""

    sample_size: int | None = Field(default=None, ge=1)
    """Number of tokens that the approximate search looks at. Null: exact components. Not together with
    epsilon."""

    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of everything that the compressor draws at random."""

    block_size: int | None = Field(default=None, ge=1)
    """Number of similarities that are held in memory at a time. It changes memory and speed, never the
    result. Null: 4194304 on a CPU, 67108864 on a GPU."""

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        is_asked = isinstance(values, dict) and values.get("preset") == "recommended"
        return {**RECOMMENDED, **values} if is_asked else values

    @model_validator(mode="after")
    def _check_search(self) -> ScissorConfig:
        if self.epsilon is not None and self.sample_size is not None:
            raise KeyConflictError(
                ("epsilon", "sample_size"),
                f"got {self.epsilon} and {self.sample_size}, expected only one of the two: "
                "both give the size of the approximate search",
            )
        if self.epsilon is None and self.sample_size is None:
            warn_without_effect(self, "compression", {"seed"}, "without epsilon or sample_size")
        return self

    @property
    def effective_tau(self) -> float | None:
        """The threshold to start from: `tau`, 0.9 if nothing is given, None for an exact budget alone."""
        return DEFAULT_TAU if self.tau is None and self.retention_ratio is None else self.tau


class NoCompressionConfig(MethodConfig):
    """Keep all tokens."""

    method: Literal["none"] = "none"
    """Keep all tokens."""

    @model_validator(mode="after")
    def _check_images(self) -> NoCompressionConfig:
        warn_without_effect(self, "compression", {"images"}, "with compression.method 'none'")
        return self


class RatioConfig(MethodConfig):
    """Base of the settings of methods that keep an exact number of tokens."""

    retention_ratio: float = Field(gt=0, le=1)
    """Share r of the N tokens to keep: exactly max(1, floor(r N)) tokens stay."""


class PeerConfig(RatioConfig):
    """Base of the settings of peers that work behind the projector."""

    positions: Literal["consecutive", "original"] = "consecutive"
    """Where kept tokens stand in the prompt, as for scissor."""


class RandomConfig(PeerConfig):
    """Tokens drawn without replacement."""

    method: Literal["random"] = "random"
    """Keep random tokens."""

    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of the draw. Every device keeps the same tokens."""


class UniformConfig(PeerConfig):
    """An even share of every frame, evenly spread in it."""

    method: Literal["uniform"] = "uniform"
    """Keep evenly spread tokens."""


class UniformFramesConfig(PeerConfig):
    """Evenly spread frames, as few as can hold the budget."""

    method: Literal["uniform_frames"] = "uniform_frames"
    """Keep evenly spread frames."""


class PoolingConfig(PeerConfig):
    """Means of rectangular cells of every frame."""

    method: Literal["pooling"] = "pooling"
    """Average neighbouring tokens."""


class L2NormConfig(PeerConfig):
    """The longest tokens of the video."""

    method: Literal["l2norm"] = "l2norm"
    """Keep the longest tokens."""


class ToMeConfig(PeerConfig):
    """Token Merging: rounds of bipartite matching."""

    method: Literal["tome"] = "tome"
    """Merge the most similar pairs."""


class DyCokeConfig(PeerConfig):
    """DyCoke: whole frames, and what differs from them."""

    method: Literal["dycoke"] = "dycoke"
    """Keep the first frame of each window, and what changes in the others."""

    window_size: int = Field(default=4, ge=1)
    """Frames of a window, whose first frame is kept whole. It doubles until all first frames fit."""


class DivPruneConfig(PeerConfig):
    """DivPrune: the tokens that are farthest from each other."""

    method: Literal["divprune"] = "divprune"
    """Keep the tokens that are farthest from each other."""


class EVSConfig(PeerConfig):
    """Efficient Video Sampling: the first frame, and what changes."""

    method: Literal["evs"] = "evs"
    """Keep the first frame and the tokens that change most."""


class VidCom2Config(PeerConfig):
    """VidCom2: the least typical tokens of each frame."""

    method: Literal["vidcom2"] = "vidcom2"
    """Keep the least typical tokens."""

    temperature: float = Field(default=0.01, gt=0)
    """Temperature of the softmax that gives outstanding frames more tokens."""

    channel_ratio: float = Field(default=0.5, gt=0, le=1)
    """Share of the channels that is looked at: those that vary least."""


class PruneVidConfig(PeerConfig):
    """PruneVid: what stands still is averaged over time, the rest is clustered."""

    method: Literal["prunevid"] = "prunevid"
    """Average what stands still, cluster the rest."""

    static_threshold: float = Field(default=0.8, ge=-1, le=1)
    """Mean similarity of a position over a window above which it is static."""

    window_ratio: float = Field(default=0.25, gt=0, le=1)
    """Clusters of frames / frames. Each cluster gives at most one window."""

    num_neighbours: int = Field(default=7, ge=1)
    """Nearest points from which the density of a point is taken."""


class VisionZipConfig(PeerConfig):
    """VisionZip: the tokens with the most attention, and means of the rest."""

    method: Literal["visionzip"] = "visionzip"
    """Keep what the vision tower attends to, merge the rest."""

    dominant_ratio: float = Field(default=54 / 64, gt=0, le=1)
    """Share of the budget for the tokens with the most attention; the paper has 54 of 64."""


class FastVIDConfig(PeerConfig):
    """FastVID: salient tokens, and the rest of a segment merged into peaks of density."""

    method: Literal["fastvid"] = "fastvid"
    """Keep salient tokens, merge the rest of each segment."""

    num_segments: int = Field(default=8, ge=1)
    """Smallest number of segments, if there are that many frames."""

    segment_threshold: float = Field(default=0.9, ge=-1, le=1)
    """Similarity of neighbouring frames below which a segment ends."""

    merged_ratio: float = Field(default=0.4, ge=0, le=1)
    """Share of the budget for merged tokens."""

    anchor_step: int = Field(default=4, ge=1)
    """Distance in frames between the anchor frames of a segment, which hold its merged tokens."""

    centre_weight: float = Field(default=0.6, ge=0, le=1)
    """Smallest weight of a centre in the mean with the tokens that it merges."""

    num_neighbours: int = Field(default=4, ge=1)
    """Nearest points from which the density of a point is taken."""


class HoliTomConfig(PeerConfig):
    """HoliTom: static positions once for each window, of the rest what has the most attention."""

    method: Literal["holitom"] = "holitom"
    """Keep static positions once, and what the vision tower attends to."""

    static_threshold: float | None = Field(default=None, ge=-1, le=1)
    """Similarity to the next frame above which a position is static. Null: 0.65 up to a retention_ratio of
    0.1 and 0.8 above, as in the paper, which has 0.65 at 0.1 and 0.8 from 0.15 to 0.25."""

    merged_ratio: float = Field(default=0.0, ge=0, le=1)
    """Share of merged tokens in the budget of the positions that are not static."""

    centre_weight: float = Field(default=0.6, ge=0, le=1)
    """Weight of a centre beside the mean of the tokens that it merges."""

    num_neighbours: int = Field(default=7, ge=1)
    """Nearest points from which the density of a point is taken."""

    @property
    def effective_static_threshold(self) -> float:
        """`static_threshold`, or the paper's value for the retention ratio."""
        if self.static_threshold is not None:
            return self.static_threshold
        return 0.65 if self.retention_ratio <= 0.1 else 0.8


class UnifiedConfig(PeerConfig):
    """Unified Spatiotemporal compression: what has attention and is unlike the rest, and clusters."""

    method: Literal["unified"] = "unified"
    """Keep what is attended to and unlike the rest, cluster what is left."""

    pool_threshold: float = Field(default=0.7, ge=-1, le=1)
    """Similarity to a kept token from which on a token is not kept itself."""

    cluster_ratio: float = Field(default=0.3, ge=0, le=1)
    """Share of the budget for clusters."""

    num_neighbours: int = Field(default=7, ge=1)
    """Nearest points from which the density of a point is taken."""


class FastVConfig(RatioConfig):
    """FastV: tokens are dropped inside the language model, and the others keep their positions."""

    method: Literal["fastv"] = "fastv"
    """Drop tokens inside the language model."""

    layer: int = Field(default=2, ge=1)
    """Number of layers that see all tokens. Comparisons on video often have 3."""


_Method = (
    ScissorConfig
    | NoCompressionConfig
    | RandomConfig
    | UniformConfig
    | UniformFramesConfig
    | PoolingConfig
    | L2NormConfig
    | ToMeConfig
    | DyCokeConfig
    | DivPruneConfig
    | EVSConfig
    | VidCom2Config
    | PruneVidConfig
    | VisionZipConfig
    | FastVIDConfig
    | HoliTomConfig
    | UnifiedConfig
    | FastVConfig
)

METHODS: dict[str, type[MethodConfig]] = {
    kind.model_fields["method"].default: kind for kind in get_args(_Method)
}
"""The settings class of each method by its name."""


def _complete(values: Any) -> Any:
    """Take scissor where no method is named, and leave out, with a warning, keys that only other methods know."""
    if not isinstance(values, dict):
        return values
    values = {"method": ScissorConfig.model_fields["method"].default, **values}
    kind = METHODS.get(values["method"]) if isinstance(values["method"], str) else None
    if kind is None:
        return values
    foreign = {
        key: {name: k.model_fields[key].default for name, k in METHODS.items() if key in k.model_fields}
        for key in values
        if key not in kind.model_fields
    }
    for key, defaults in foreign.items():
        if defaults and values[key] not in defaults.values():
            logger.warning(
                "compression.%s has no effect with compression.method '%s', only with %s",
                key,
                values["method"],
                ", ".join(defaults),
            )
    return {key: value for key, value in values.items() if not foreign.get(key)}


CompressionConfig = Annotated[_Method, Discriminator("method"), BeforeValidator(_complete)]
"""The type of the section `compression`: the settings of any method."""
