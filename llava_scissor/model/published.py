"""The sizes of published models, for what needs no checkpoint: counts of operations, random weights."""

from __future__ import annotations

from transformers import Qwen2Config, SiglipVisionConfig

from llava_scissor.errors import InputError
from llava_scissor.model.geometry import Geometry
from llava_scissor.model.layouts import TOWERS

_TOWER = TOWERS["siglip-so400m-patch14-384"]
_LANGUAGE = {
    "0.5b": {
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "7b": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
}
PUBLISHED_SIZES = tuple(_LANGUAGE)


def published_geometry(size: str) -> Geometry:
    """Return what config.json of a published model of that size says.

    Raises:
        InputError: there is no such size.
    """
    if size not in _LANGUAGE:
        raise InputError(f"model size {size!r}: expected {' or '.join(PUBLISHED_SIZES)}")
    return Geometry(
        layout="original",
        vision=SiglipVisionConfig(**_TOWER, vision_use_head=False),
        language=Qwen2Config(
            **_LANGUAGE[size],
            max_position_embeddings=32768,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        ),
        use_newline=True,
    )
