"""The sections of the settings and their ranges; config/methods.py has those of `compression`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from llava_scissor.config.messages import KeyConflictError
from llava_scissor.config.methods import CompressionConfig, ScissorConfig
from llava_scissor.config.section import MAX_SEED, Section, warn_without_effect


def _check_texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) and text for text in value):
        raise ValueError("not a list of texts")  # the message is made from the field
    return tuple(value)


Texts = Annotated[tuple[str, ...], BeforeValidator(_check_texts)]


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
            warn_without_effect(self, "generation", sampling_keys, "with generation.do_sample false")
        return self


class Config(Section):
    """All settings of one run; `Config()` is the demo that ships in the package."""

    model: ModelConfig = ModelConfig()
    """The checkpoint."""

    video: VideoConfig = VideoConfig()
    """The frames."""

    compression: CompressionConfig = ScissorConfig()
    """The visual tokens."""

    generation: GenerationConfig = GenerationConfig()
    """The answer."""
