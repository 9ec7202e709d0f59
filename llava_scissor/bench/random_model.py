"""Models of real sizes with random weights: as fast and as large as real ones, and as clever as dice."""

from __future__ import annotations

import torch

from llava_scissor.demo.vocabulary import build_tokenizer
from llava_scissor.model import OneVision
from llava_scissor.model.checkpoint import compute_tables
from llava_scissor.model.published import published_geometry


def random_model(
    size: str, device: torch.device, dtype: torch.dtype, attn_implementation: str = "sdpa", seed: int = 0
) -> OneVision:
    """Build LLaVA-OneVision with SigLIP so400m and a Qwen2 of a named size, straight on its device.

    Args:
        size: one of `PUBLISHED_SIZES`.
        device: where the weights are drawn.
        dtype: of the weights.
        attn_implementation: as for `load_model`.
        seed: of the weights.

    Returns:
        The model in evaluation mode. Its tokenizer is that of the demo model.

    Raises:
        InputError: there is no such size.
    """
    geometry = published_geometry(size)
    with torch.device("meta"):
        model = OneVision(geometry, build_tokenizer(), attn_implementation=attn_implementation)
    model = model.to(dtype).to_empty(device=device)
    if geometry.language.tie_word_embeddings:
        model.language_model.lm_head.weight = model.language_model.model.embed_tokens.weight
    draw = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_scale = parameter.ndim == 1 and name.endswith("weight")
            parameter.fill_(1) if is_scale else parameter.normal_(std=0.02, generator=draw)
    compute_tables(model)
    return model.requires_grad_(False).eval()
