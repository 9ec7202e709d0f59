"""A whole checkpoint beside transformers, stage by stage: `LLAVA_SCISSOR_CHECKPOINT=directory` names a real one.

Takes 8 bytes of memory for each parameter. Without the variable, tiny random checkpoints stand in for real ones.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from llava_scissor.config import GenerationConfig
from llava_scissor.generation.decode import find_stop_ids
from llava_scissor.model import OneVision, load_model
from tests.model.checkpoints import build_reference, reference_tokens, save_huggingface, save_original
from tests.writing import generate_ids

VARIABLE = "LLAVA_SCISSOR_CHECKPOINT"
QUESTION = "what is this?"
NUM_NEW_TOKENS = 8
# The original layout as transformers 5 has it in memory.
ORIGINAL_NAMES = (
    (r"model\.vision_tower\.vision_tower\.(?:vision_model\.)?", "model.vision_tower."),
    (r"model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"model\.(?=embed_tokens|layers|norm)", "model.language_model."),
)


def load_reference(directory: Path, model: OneVision) -> LlavaOnevisionForConditionalGeneration:
    """The checkpoint in transformers' own classes; the original layout through renamed weights."""
    if model.geometry.layout == "huggingface":
        reference = LlavaOnevisionForConditionalGeneration.from_pretrained(directory, dtype=torch.float32)
        return reference.eval().requires_grad_(False)
    is_tied = model.language_model.config.tie_word_embeddings
    config = LlavaOnevisionConfig(
        vision_config=model.geometry.vision,
        text_config=model.geometry.language,
        vision_feature_layer=-1,
        tie_word_embeddings=is_tied,
    )
    reference = LlavaOnevisionForConditionalGeneration(config).float().eval().requires_grad_(False)
    state = {}
    for file in directory.glob("*.safetensors"):
        for name, tensor in load_file(file).items():
            for pattern, replacement in ORIGINAL_NAMES:
                name = re.sub(f"^{pattern}", replacement, name)
            state[name] = tensor
    allowed = {"model.image_newline", *(["lm_head.weight"] if is_tied else [])}
    missing = reference.load_state_dict(state, strict=False).missing_keys
    assert {name for name in missing if "post_layernorm" not in name} <= allowed
    return reference


def check(directory: Path) -> None:
    model = load_model(directory, device="cpu", dtype="float32")
    reference = load_reference(directory, model)
    size = model.geometry.image_size
    frames = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    texts = model.tokenize(QUESTION)

    tokens = model.encode_video(frames)  # (F, P, D)
    visual = reference_tokens(reference, frames, 2 * model.geometry.tokens_per_frame)  # (F * P, D)
    assert_close(tokens.flatten(0, 1), visual)

    if model.geometry.use_newline:
        visual = torch.cat([visual, reference.model.image_newline[None]])
    before, behind = (reference.get_input_embeddings()(torch.tensor(ids)) for ids in texts)
    embeds = torch.cat([before, visual, behind])
    assert_close(model.embed_prompt(texts, tokens.flatten(0, 1)), embeds)

    logits = reference.lm_head(
        reference.model.language_model(inputs_embeds=embeds[None]).last_hidden_state[0]
    )
    assert_close(model(frames, QUESTION), logits)

    settings = GenerationConfig(max_new_tokens=NUM_NEW_TOKENS, repetition_penalty=1.0)
    answer = generate_ids(model, embeds, settings)
    assert answer == greedy(reference, embeds, find_stop_ids(model), model.num_token_ids)


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    error = (ours - theirs).abs().max() / theirs.abs().max()
    assert error <= 1e-5


def greedy(reference, embeds: torch.Tensor, stop_ids: list[int], num_ids: int) -> list[int]:
    ids: list[int] = []
    while len(ids) < NUM_NEW_TOKENS and not set(ids) & set(stop_ids):
        hidden = reference.model.language_model(inputs_embeds=embeds[None], use_cache=False).last_hidden_state
        ids.append(int(reference.lm_head(hidden[0, -1])[:num_ids].argmax()))
        embeds = torch.cat([embeds, reference.get_input_embeddings()(torch.tensor(ids[-1:]))])
    return ids


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} names no checkpoint to compare")
def test_the_named_checkpoint_is_that_of_transformers() -> None:
    check(Path(os.environ[VARIABLE]))


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("layout", ["original", "original, flat", "huggingface"])
def test_a_stand_in_for_it(layout, is_tied, tmp_path):
    reference = build_reference(is_tied=is_tied)
    if layout == "huggingface":
        save_huggingface(reference, tmp_path, "2024")
    else:
        flat = {"mm_patch_merge_type": "flat"} if "flat" in layout else {}
        save_original(reference, tmp_path, num_shards=2, **flat)
    check(tmp_path)
