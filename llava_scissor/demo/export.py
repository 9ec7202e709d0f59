"""Writing the demo model as a checkpoint directory in the original layout."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from llava_scissor.demo.curriculum import DemoNetwork
from llava_scissor.demo.scenes import NUM_STEPS
from llava_scissor.model.weight_names import stored_name

_TRAINING_ONLY = ("patch_head.", "rows_and_columns")


def export(network: DemoNetwork, directory: Path) -> None:
    """Write configuration, float16 weights and tokenizer.

    Args:
        network: the trained network; its training-only parts are left out.
        directory: made if it is not there; files of the same names are replaced.
    """
    directory.mkdir(parents=True, exist_ok=True)
    weights = {
        stored_name(name, "original"): parameter.detach().to("cpu", torch.float16).contiguous()
        for name, parameter in network.named_parameters()
        if not name.startswith(_TRAINING_ONLY)
    }
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    _write_json(directory / "config.json", _config(network))
    stop = network.language_model.config.eos_token_id
    _write_json(directory / "generation_config.json", {"do_sample": False, "eos_token_id": [stop]})
    network.tokenizer.save_pretrained(directory)


def _config(network: DemoNetwork) -> dict:
    text, tower = network.language_model.config, network.vision_tower.config
    language_keys = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps"),
        *("tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id"),
    )
    tower_keys = (
        *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("image_size", "patch_size"),
    )
    return {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava_qwen",
        **{key: getattr(text, key) for key in language_keys},
        "rope_theta": text.to_dict()["rope_parameters"]["rope_theta"],
        "mm_vision_tower": "llava-scissor/siglip-demo",
        "mm_vision_tower_config": {key: getattr(tower, key) for key in tower_keys},
        "mm_hidden_size": tower.hidden_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_newline_position": "one_token",
        "mm_spatial_pool_mode": "bilinear",
        "mm_spatial_pool_stride": 2,
        "image_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": "(1x1),...,(6x6)",
        "default_num_frames": NUM_STEPS,
        "torch_dtype": "float16",
    }


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
