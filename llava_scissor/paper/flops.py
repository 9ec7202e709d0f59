"""Multiply-accumulates of an answer: by the paper's equations, and counted in full.

One multiply-accumulate is counted as one operation throughout, as the paper does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from llava_scissor.config.visual_budget import budget
from llava_scissor.model.geometry import Geometry

NUM_NEW_TOKENS = 100
"""Tokens of an answer in the paper's count."""

_TERA = 1e12


@dataclass(frozen=True)
class PaperFlops:
    """The paper's count for one video, in tera-operations.

    Attributes:
        language_model: prefill and generation.
        compression: of the two-step compressor; 0 for methods that the paper counts none for.
    """

    language_model: float
    compression: float = 0.0

    @property
    def total(self) -> float:
        """Sum of both."""
        return self.language_model + self.compression


def paper_flops(
    geometry: Geometry,
    num_visual: int,
    num_new_tokens: int = NUM_NEW_TOKENS,
    num_full_layers: int = 0,
    num_full: int = 0,
) -> PaperFlops:
    """Count the language model as the paper does.

    Every layer is four square matrices, two of the feed-forward block, and attention without a causal mask;
    text, vision tower, projector and output head are left out, and so is that keys and values are shared
    between heads.

    Args:
        geometry: sizes of the model.
        num_visual: visual tokens that the language model gets.
        num_new_tokens: length of the answer.
        num_full_layers: first layers that still see all tokens, for methods that prune in between.
        num_full: how many tokens those see.

    Reference: LLaVA-Scissor (arXiv 2506.21862), equations 9 and 10.
    """
    width, hidden = geometry.language.hidden_size, geometry.language.intermediate_size
    num_layers = geometry.language.num_hidden_layers

    def layer(tokens: int) -> float:
        weights = 4 * width**2 + 2 * width * hidden
        prefill = tokens * weights + 2 * tokens**2 * width
        attended = width * tokens + width * (num_new_tokens + 1) / 2
        return prefill + num_new_tokens * (weights + 2 * attended)

    total = num_full_layers * layer(num_full) + (num_layers - num_full_layers) * layer(num_visual)
    return PaperFlops(total / _TERA)


def paper_compression_flops(geometry: Geometry, num_frames: int, num_spatial: int, num_kept: int) -> float:
    """Count the similarities of the two-step compressor as the paper does, in tera-operations.

    Args:
        geometry: sizes of the model.
        num_frames: F.
        num_spatial: tokens after the spatial step, which the paper does not print.
        num_kept: tokens after the temporal step.
    """
    width, size = geometry.language.hidden_size, geometry.tokens_per_frame
    spatial = num_frames * 2 * size**2 * width
    return (spatial + 2 * num_spatial**2 * width + 2 * num_frames * size * num_kept * width) / _TERA


@dataclass(frozen=True)
class FullFlops:
    """Everything that an answer costs, in tera-operations.

    Attributes:
        vision_tower: all frames; the same whatever is compressed.
        projector: the same.
        compression: similarities of the two steps and of the merge, none if every token is kept.
        prefill: language model on text and kept tokens.
        generate: language model on each new token.
    """

    vision_tower: float
    projector: float
    compression: float
    prefill: float
    generate: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return self.vision_tower + self.projector + self.compression + self.prefill + self.generate


@dataclass(frozen=True)
class Workload:
    """What is asked of the model.

    Attributes:
        num_frames: F.
        retention_ratio: tokens kept / tokens before.
        spatial_ratio: tokens after the spatial step / tokens before; it depends on the video. None takes
            the middle between what is kept in the end and everything.
        num_text_tokens: of system prompt and question.
        num_new_tokens: of the answer.
    """

    num_frames: int = 32
    retention_ratio: float = 1.0
    spatial_ratio: float | None = None
    num_text_tokens: int = 40
    num_new_tokens: int = NUM_NEW_TOKENS


def full_flops(geometry: Geometry, work: Workload) -> FullFlops:
    """Count every matrix product: grouped keys and values, three feed-forward matrices, causal attention,
    output head, vision tower, projector, text, and the compressor's similarities.

    Element-wise work (norms, softmax, activations) is left out, as is the choice of an exact budget's
    threshold.
    """  # noqa: D205  the list of what is counted needs more than a line
    vision, language = geometry.vision, geometry.language
    patches, frames = geometry.patches_per_side**2, work.num_frames
    num_input = frames * geometry.tokens_per_frame
    num_kept = budget(work.retention_ratio, num_input)
    block = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    block_total = patches * block + 2 * patches**2 * vision.hidden_size
    embedding = 3 * geometry.patch_size**2 * vision.hidden_size * patches
    projector = vision.hidden_size * language.hidden_size + language.hidden_size**2

    weights = _language_weights(geometry)
    head = language.hidden_size * language.vocab_size
    attention_width = 2 * language.hidden_size * language.num_hidden_layers
    prompt = num_kept + int(geometry.use_newline) + work.num_text_tokens
    prefill = prompt * weights + attention_width * prompt * (prompt + 1) / 2 + head
    later = max(0, work.num_new_tokens - 1)  # the first comes out of the prefill
    generate = later * (weights + head) + attention_width * (later * prompt + later * (later + 1) / 2)
    return FullFlops(
        vision_tower=frames * (vision.num_hidden_layers * block_total + embedding) / _TERA,
        projector=frames * patches * projector / _TERA,
        compression=_compression(geometry, work, num_input, num_kept) / _TERA,
        prefill=prefill / _TERA,
        generate=generate / _TERA,
    )


def count_row(geometry: Geometry, work: Workload) -> dict[str, float | int | str]:
    """Return both counts of one workload as a row of a table: tera-operations, and shares of all tokens' total."""
    num_input = work.num_frames * geometry.tokens_per_frame
    num_kept = budget(work.retention_ratio, num_input)
    full, everything = full_flops(geometry, work), full_flops(geometry, replace(work, retention_ratio=1.0))
    by_paper = paper_flops(geometry, num_kept, work.num_new_tokens).total
    return {
        "retention": f"{work.retention_ratio:.4g}",
        "kept": num_kept,
        **asdict(full),
        "total": full.total,
        "share": f"{full.total / everything.total:.1%}",
        "paper": by_paper,
        "paper share": f"{by_paper / paper_flops(geometry, num_input, work.num_new_tokens).total:.1%}",
    }


def _language_weights(geometry: Geometry) -> int:
    """Return the weights that every token is multiplied with."""
    language = geometry.language
    key_width = language.hidden_size // language.num_attention_heads * geometry.num_key_value_heads
    attention = 2 * language.hidden_size**2 + 2 * language.hidden_size * key_width
    return language.num_hidden_layers * (attention + 3 * language.hidden_size * language.intermediate_size)


def _compression(geometry: Geometry, work: Workload, num_input: int, num_kept: int) -> float:
    if num_kept == num_input:
        return 0
    ratio = (1 + work.retention_ratio) / 2 if work.spatial_ratio is None else work.spatial_ratio
    pairs = num_input * geometry.tokens_per_frame + (ratio * num_input) ** 2 + num_input * num_kept
    return pairs * geometry.language.hidden_size
