"""Models of real sizes with random weights: as fast and as large as real ones, and as clever as dice."""

from __future__ import annotations

import torch
from transformers import Qwen2Config, SiglipVisionConfig

from llava_scissor.demo.vocabulary import build_tokenizer
from llava_scissor.errors import InputError
from llava_scissor.model import OneVision
from llava_scissor.model.checkpoint import compute_tables
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
RANDOM_SIZES = tuple(_LANGUAGE)


def geometry_of(size: str) -> Geometry:
    """Return what config.json of a published model of that size says.

    Raises:
        InputError: there is no such size.
    """
    if size not in _LANGUAGE:
        raise InputError(f"random model {size!r}: expected {' or '.join(RANDOM_SIZES)}")
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


def random_model(
    size: str, device: torch.device, dtype: torch.dtype, attn_implementation: str = "sdpa", seed: int = 0
) -> OneVision:
    """Build LLaVA-OneVision with SigLIP so400m and a Qwen2 of a named size, straight on its device.

    Args:
        size: one of `RANDOM_SIZES`.
        device: where the weights are drawn.
        dtype: of the weights.
        attn_implementation: as for `load_model`.
        seed: of the weights.

    Returns:
        The model in evaluation mode. Its tokenizer is that of the demo model.

    Raises:
        InputError: there is no such size.
    """
    geometry = geometry_of(size)
    with torch.device("meta"):
        model = OneVision(geometry, build_tokenizer(), attn_implementation=attn_implementation)
    model = model.to(dtype).to_empty(device=device)
    if geometry.language.tie_word_embeddings:
        model.language_model.lm_head.weight = model.language_model.get_input_embeddings().weight
    draw = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = parameter.ndim == 1 and name.endswith("weight")
            parameter.fill_(1) if is_scale else parameter.normal_(std=0.02, generator=draw)
    compute_tables(model)
    return model.requires_grad_(False).eval()
