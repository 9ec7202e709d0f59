"""The settings and their ranges: this file is the source of docs/configuration.md."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from llava_scissor.config.messages import KeyConflictError, config_error

logger = logging.getLogger(__name__)

DEFAULT_TAU = 0.9
MAX_SEED = 2**63 - 1  # what torch.Generator.manual_seed takes

_KEYS_WITH_EFFECT: dict[str, set[str]] = {
    "none": set(),
    "random": {"retention_ratio", "positions", "seed"},
    "fastv": {"retention_ratio"},
}
_PEER_KEYS = {"retention_ratio", "positions"}
Selecting = Literal["random", "uniform", "uniform_frames", "l2norm", "dycoke", "divprune", "evs", "vidcom2"]
Merging = Literal["pooling", "tome", "prunevid"]
Attentive = Literal["visionzip", "fastvid", "holitom", "unified", "fastv"]

RECOMMENDED = {"temporal_window": 4, "positions": "original"}
"""Values of the preset for keys that are not given themselves; docs/quality.md has the measurements."""


def _check_texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) and text for text in value):
        raise ValueError("not a list of texts")  # the message is made from the field
    return tuple(value)


Texts = Annotated[tuple[str, ...], BeforeValidator(_check_texts)]


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


def _warn_without_effect(section: Section, name: str, keys: set[str], reason: str) -> None:
    for key, field in type(section).model_fields.items():
        if key in keys and getattr(section, key) != field.default:
            logger.warning("%s.%s has no effect %s", name, key, reason)


class ScissorConfig(Section):
    """Operating point of the two-step compressor; without `tau` and `retention_ratio`, tau is 0.9."""

    preset: Literal["paper", "recommended"] = "paper"
    """Of scissor. paper: the published method. recommended: temporal_window 4 and positions original, which
    keep when something happened; keys that are given win over the preset."""

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
    place of the tokens that it stands for, sorted by it, the rest of the prompt where it would be with all
    tokens. Of every method; fastv and none always keep places."""

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
        if not isinstance(values, dict) or values.get("method", "scissor") != "scissor":
            return values
        return {**RECOMMENDED, **values} if values.get("preset") == "recommended" else values

    @model_validator(mode="after")
    def _check_one_search_size(self) -> ScissorConfig:
        if self.epsilon is not None and self.sample_size is not None:
            raise KeyConflictError(
                ("epsilon", "sample_size"),
                f"got {self.epsilon} and {self.sample_size}, expected only one of the two: "
                "both give the size of the approximate search",
            )
        return self

    @property
    def effective_tau(self) -> float | None:
        """The threshold to start from: `tau`, 0.9 if nothing is given, None for an exact budget alone."""
        return DEFAULT_TAU if self.tau is None and self.retention_ratio is None else self.tau


class CompressionConfig(ScissorConfig):
    """Section `compression`: which visual tokens of the video reach the language model."""

    method: Literal["scissor", "none", Selecting, Merging, Attentive] = "scissor"
    """scissor: semantic connected components; none: keep all tokens; the others need a retention_ratio, see
    docs/methods.md."""

    images: bool = False
    """Whether images are compressed, too. false: they keep all their tokens, only videos are compressed."""

    @model_validator(mode="after")
    def _check_method(self) -> CompressionConfig:
        if self.method not in ("scissor", "none") and self.retention_ratio is None:
            raise KeyConflictError(
                ("method", "retention_ratio"),
                f"got '{self.method}' and null, expected a retention_ratio above 0 and at most 1: "
                f"it is all that tells '{self.method}' how many tokens to keep",
            )
        is_exact = self.epsilon is None and self.sample_size is None
        every = set(ScissorConfig.model_fields)
        unused = every - (
            every if self.method == "scissor" else _KEYS_WITH_EFFECT.get(self.method, _PEER_KEYS)
        )
        unused |= {"images"} if self.method == "none" else set()
        _warn_without_effect(self, "compression", unused, f"with compression.method '{self.method}'")
        if self.method == "scissor" and is_exact:
            _warn_without_effect(self, "compression", {"seed"}, "without epsilon or sample_size")
        return self


class ModelConfig(Section):
    """Section `model`: the checkpoint and how it is loaded."""

    path: str = Field(default="demo", min_length=1)
    """Directory or Hugging Face hub id of a LLaVA-OneVision checkpoint. demo: the small model that ships in
    the package."""

    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|mps|cuda(:[0-9]+)?)$",
        examples=["auto", "cpu", "cuda", "cuda:0", "mps"],
    )
    """Where the model runs. auto: a CUDA GPU if there is one, else the CPU."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights. auto: as stored in the checkpoint, but float32 instead of float16 on a
    CPU."""

    attn_implementation: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """Attention kernel. auto: flash_attention_2 if it is installed and the device is CUDA, else sdpa."""

    device_map: Literal["auto"] | None = None
    """auto: spread the layers of the language model over all GPUs, then the memory of the host, then the
    disk, for models that are larger than one GPU. Null: everything on model.device."""

    quantization: Literal["8bit", "4bit"] | None = None
    """Linear layers of the language model in 8 or 4 bits. Needs the extra llava-scissor[quantization], and
    one device. Null: all weights in model.dtype."""

    @model_validator(mode="after")
    def _check_devices(self) -> ModelConfig:
        if self.device_map is not None and self.device != "auto":
            raise KeyConflictError(
                ("device", "device_map"),
                f"got '{self.device}' and '{self.device_map}', expected only one of the two: "
                "device_map 'auto' chooses the devices itself",
            )
        if self.device_map is not None and self.quantization is not None:
            raise KeyConflictError(
                ("device_map", "quantization"),
                f"got '{self.device_map}' and '{self.quantization}', expected only one of the two: "
                "a quantised model needs one device",
            )
        return self


class VideoConfig(Section):
    """Section `video`: how frames are taken from the file."""

    num_frames: int | None = Field(default=None, ge=1, le=4096)
    """Number of frames, spread evenly over the video. Null: the checkpoint's default."""

    decoder: Literal["pyav", "decord"] = "pyav"
    """Library that decodes the video. decord needs the extra llava-scissor[decord]."""

    resize: Literal["torch", "pil"] = "pil"
    """Code that resizes the frames (bicubic). pil: exactly as in training; torch: faster, nearly always
    within one grey level of it."""


class GenerationConfig(Section):
    """Section `generation`: how the answer is written."""

    max_new_tokens: int = Field(default=256, ge=1, le=32768)
    """Longest answer, in text tokens."""

    do_sample: bool = False
    """false: the most likely token each time; true: draw."""

    temperature: float | None = Field(default=None, gt=0)
    """Sharpness of the draw. Null: as the checkpoint says. Needs do_sample."""

    top_p: float | None = Field(default=None, gt=0, le=1)
    """Draw from the likeliest tokens of this total probability. Null: as the checkpoint says. Needs
    do_sample."""

    top_k: int | None = Field(default=None, ge=0)
    """Draw from this many likeliest tokens, 0: from all. Null: as the checkpoint says. Needs do_sample."""

    repetition_penalty: float | None = Field(default=None, gt=0)
    """Above 1: tokens already in the answer become less likely, 1: no penalty. Null: as the checkpoint
    says."""

    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of the draw. Needs do_sample."""

    stop: Texts = ()
    """Texts that end the answer, which is cut before the first of them. The model's own end of turn always
    does."""

    @model_validator(mode="after")
    def _check_sampling(self) -> GenerationConfig:
        if not self.do_sample:
            sampling_keys = {"temperature", "top_p", "top_k", "seed"}
            _warn_without_effect(self, "generation", sampling_keys, "with generation.do_sample false")
        return self


class Config(Section):
    """All settings of one run; `Config()` is the demo that ships in the package."""

    model: ModelConfig = ModelConfig()
    """The checkpoint."""

    video: VideoConfig = VideoConfig()
    """The frames."""

    compression: CompressionConfig = CompressionConfig()
    """The visual tokens."""

    generation: GenerationConfig = GenerationConfig()
    """The answer."""
