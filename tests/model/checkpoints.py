"""Tiny random checkpoints in every layout, saved from a model of transformers that is the reference."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

VOCABULARY_SIZE = 64
IMAGE_ID, VIDEO_ID = 62, 63
CONTROL = ["<|endoftext|>", "<unk>", "<|im_start|>", "<|im_end|>"]
WORDS = ["\n", "system", "user", "assistant", "You", "are", "a", "helpful", ".", "what", "is", "this", "?"]

# A 75 pixel frame has 5 x 5 patches and 5 pixels over; 5 x 5 pools to 3 x 3.
SMALL_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 75,
    "patch_size": 14,
}
REAL_GRID_TOWER = {**SMALL_TOWER, "num_hidden_layers": 2, "image_size": 384}  # 27 x 27 -> 14 x 14
LANGUAGE = {
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word is a token; ids without a word are spelled `w40` and so on, so that every id has a text."""
    words = [*CONTROL, *WORDS]
    words += [f"w{i}" for i in range(len(words), VOCABULARY_SIZE)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|\w+|[^\w\s]"), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )


def build_reference(
    tower: dict = SMALL_TOWER,
    *,
    language: dict = LANGUAGE,
    is_tied: bool = False,
    vision_feature_layer: int = -1,
    seed: int = 0,
) -> LlavaOnevisionForConditionalGeneration:
    """A model of transformers with random weights everywhere, biases and norms included."""
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**tower, vision_use_head=False),
        text_config=Qwen2Config(
            **language,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            tie_word_embeddings=is_tied,
            eos_token_id=3,
        ),
        image_token_index=IMAGE_ID,
        video_token_index=VIDEO_ID,
        vision_feature_layer=vision_feature_layer,
        tie_word_embeddings=is_tied,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaOnevisionForConditionalGeneration(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.1
    return model


def save_huggingface(model: LlavaOnevisionForConditionalGeneration, directory: Path, spelling: str) -> Path:
    """Save as `flattened` (by transformers itself), as `2024` (by hand), or as `in_memory`."""
    model.save_pretrained(directory)
    build_tokenizer().save_pretrained(directory)
    if spelling != "flattened":
        state = {
            name: tensor for name, tensor in model.state_dict().items() if not _is_tied_head(model, name)
        }
        save_weights({_spelling_2024(k) if spelling == "2024" else k: v for k, v in state.items()}, directory)
    return directory


def save_original(
    model: LlavaOnevisionForConditionalGeneration, directory: Path, num_shards: int = 1, **config: object
) -> Path:
    """Save in the original layout, with `config` added to config.json and None taking a key away."""
    state = {_original_name(name): tensor for name, tensor in model.state_dict().items()}
    if model.config.text_config.tie_word_embeddings:
        del state["lm_head.weight"]
    save_weights(state, directory, num_shards)
    write_original_config(directory, **config)
    build_tokenizer().save_pretrained(directory)
    return directory


def write_original_config(directory: Path, **changes: object) -> None:
    config = {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        **LANGUAGE,
        "rope_theta": 1e6,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "mm_vision_tower": "somewhere/siglip-tiny",
        "mm_vision_tower_config": SMALL_TOWER,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_newline_position": "one_token",
        "mm_spatial_pool_mode": "bilinear",
        "mm_vision_select_layer": -2,
        "mm_resampler_type": None,
        "image_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": "(1x1),...,(6x6)",
        **changes,
    }
    write_json(directory / "config.json", {key: value for key, value in config.items() if value != "absent"})


def save_weights(state: dict[str, torch.Tensor], directory: Path, num_shards: int = 1) -> None:
    directory.mkdir(exist_ok=True)
    state = {name: tensor.clone() for name, tensor in state.items()}
    if num_shards == 1:
        save_file(state, directory / "model.safetensors")
        return
    weight_map = {}
    for i in range(num_shards):
        file = f"model-{i + 1:05}-of-{num_shards:05}.safetensors"
        part = dict(list(state.items())[i::num_shards])
        save_file(part, directory / file)
        weight_map |= dict.fromkeys(part, file)
    write_json(directory / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def change_json(path: Path, **changes: object) -> None:
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | changes)


def _is_tied_head(model: LlavaOnevisionForConditionalGeneration, name: str) -> bool:
    return name == "lm_head.weight" and model.config.text_config.tie_word_embeddings


def _spelling_2024(name: str) -> str:
    name = name.removeprefix("model.")
    name = name.replace("vision_tower.", "vision_tower.vision_model.")
    name = name.replace("language_model.", "language_model.model.")
    return name.replace("lm_head.", "language_model.lm_head.")


def _original_name(name: str) -> str:
    for ours, theirs in (
        ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
        ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
        ("model.language_model.", "model."),
    ):
        if name.startswith(ours):
            return name.replace(ours, theirs)
    return name


def reference_tokens(
    reference: LlavaOnevisionForConditionalGeneration, frames: torch.Tensor, num_tokens: int
) -> torch.Tensor:
    """The visual tokens of a video (N, D) as transformers has them; not every release appends the newline here."""
    return reference.model.get_video_features(frames[None]).pooler_output[0, :num_tokens]
