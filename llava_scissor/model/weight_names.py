"""How checkpoints name their weights; the only file that knows."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from llava_scissor.errors import CheckpointError
from llava_scissor.model.files import StoredWeight
from llava_scissor.model.geometry import Geometry, Layout

EMBEDDING, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"

# The first rule that matches renames a stored weight. Hugging Face files of different years differ by an
# optional leading "model." and by optional inner levels.
_NAMES = {
    "original": (
        (r"model\.vision_tower\.vision_tower\.(?:vision_model\.)?(.+)", r"vision_tower.\1"),
        (r"model\.mm_projector\.(.+)", r"projector.\1"),
        (r"model\.image_newline", "image_newline"),
        (r"lm_head\.(.+)", r"language_model.lm_head.\1"),
        (r"model\.(.+)", r"language_model.model.\1"),
    ),
    "huggingface": (
        (r"(?:model\.)?vision_tower\.(?:vision_model\.)?(.+)", r"vision_tower.\1"),
        (r"(?:model\.)?multi_modal_projector\.linear_1\.(.+)", r"projector.0.\1"),
        (r"(?:model\.)?multi_modal_projector\.linear_2\.(.+)", r"projector.2.\1"),
        (r"(?:model\.)?image_newline", "image_newline"),
        (r"(?:language_model\.)?lm_head\.(.+)", r"language_model.lm_head.\1"),
        (r"(?:model\.)?language_model\.(?:model\.)?(.+)", r"language_model.model.\1"),
    ),
}
# The same for writing; the Hugging Face layout as its files of 2024 spell it.
_PREFIXES = {
    "original": {
        "vision_tower.": "model.vision_tower.vision_tower.vision_model.",
        "projector.": "model.mm_projector.",
        "image_newline": "model.image_newline",
        "language_model.lm_head.": "lm_head.",
        "language_model.model.": "model.",
    },
    "huggingface": {
        "vision_tower.": "vision_tower.vision_model.",
        "projector.0.": "multi_modal_projector.linear_1.",
        "projector.2.": "multi_modal_projector.linear_2.",
        "image_newline": "image_newline",
        "language_model.": "language_model.",
    },
}
# Stored by some checkpoints and used by none: tables that are computed, what SigLIP has besides its blocks.
_UNUSED = re.compile(
    r"(.+\.)?(inv_freq|position_ids)|vision_tower\.(head|post_layernorm)\..+|(.+\.)?text_model\..+"
)


@dataclass(frozen=True)
class RenamedWeights:
    """The stored weights of a checkpoint, without those that no model uses.

    Attributes:
        by_name: stored weights under this model's names.
        ignored: names, as stored, of what is never read.
    """

    by_name: dict[str, StoredWeight]
    ignored: tuple[str, ...]

    @property
    def is_head_tied(self) -> bool:
        """Whether the embedding serves as the head: it does if no head is stored, whatever the config says."""
        return HEAD not in self.by_name


def rename_weights(stored: dict[str, StoredWeight], geometry: Geometry) -> RenamedWeights:
    """Give the stored weights this model's names.

    Raises:
        CheckpointError: two stored weights get the same name.
    """
    blocks = geometry.vision.num_hidden_layers
    unused = [f"vision_tower.encoder.layers.{blocks + i}." for i in range(geometry.num_unused_blocks)]
    unused += [] if geometry.has_newline else ["image_newline"]
    weights: dict[str, StoredWeight] = {}
    ignored = []
    for name, weight in stored.items():
        ours = our_name(name, geometry.layout)
        if _UNUSED.fullmatch(ours) or ours.startswith(tuple(unused)):
            ignored.append(name)
            continue
        if ours in weights:
            raise CheckpointError(f"{name} and {weights[ours].name} both stand for {ours}: remove one")
        weights[ours] = weight
    return RenamedWeights(weights, tuple(ignored))


def our_name(name: str, layout: Layout) -> str:
    """Return the model's name of a stored weight, or a name that the model does not have."""
    for pattern, replacement in _NAMES[layout]:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    return f"unknown.{name}"  # a name that happens to be one of ours is no part of the layout either


def stored_name(name: str, layout: Layout) -> str:
    """Return the name under which a layout stores a weight of the model; the inverse of `our_name`."""
    for ours, stored in _PREFIXES[layout].items():
        if name.startswith(ours):
            return stored + name.removeprefix(ours)
    raise KeyError(name)


def describe_spelling(names: Collection[str], layout: Layout) -> str:
    """Say in words which spelling of its layout the names of a checkpoint follow."""
    if layout == "original":
        return "original"
    if any(name.startswith("model.") for name in names):
        return "names of transformers 5 in memory"
    if any(name.startswith("vision_tower.vision_model.") for name in names):
        return "files of 2024, transformers 4"
    return "saved by transformers 5.6 or newer"
