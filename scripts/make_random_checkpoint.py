"""Write a checkpoint of a real size with random weights.

`python scripts/make_random_checkpoint.py --size 0.5b --out random-0.5b`

It is as large as a published one and is stored like one, but answers at random, with the words of the demo model.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Parse the options, draw the weights and write the directory."""
    from llava_scissor.model.published import PUBLISHED_SIZES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=PUBLISHED_SIZES, default="0.5b", help="of the language model")
    parser.add_argument("--out", type=Path, required=True, help="directory to write; made if it is not there")
    parser.add_argument("--layout", choices=("original", "huggingface"), default="original")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--shard-size", default="5GB", help="largest file, such as 500MB or 5GB")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    options = parser.parse_args()
    import torch

    from llava_scissor.bench.random_model import random_model

    model = random_model(options.size, torch.device("cpu"), getattr(torch, options.dtype), seed=options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    write_checkpoint(model, options.out, options.layout, options.shard_size)
    files = sorted(options.out.glob("*.safetensors"))
    num_bytes = sum(file.stat().st_size for file in files)
    print(json.dumps({"directory": str(options.out), "files": len(files), "bytes": num_bytes}))


def write_checkpoint(model, directory: Path, layout: str, shard_size: str) -> None:
    """Write configuration, weights and tokenizer of a model in a layout."""
    from huggingface_hub import save_torch_state_dict

    from llava_scissor.model.weight_names import stored_name

    state = {stored_name(name, layout): weight.detach() for name, weight in model.named_parameters()}
    save_torch_state_dict(state, directory, max_shard_size=shard_size)
    config = original_config(model) if layout == "original" else huggingface_config(model)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    model.tokenizer.save_pretrained(directory)


def original_config(model) -> dict:
    """Return config.json as the original layout has it."""
    from llava_scissor.model.layouts import ORIGINAL_LANGUAGE_KEYS

    language = model.geometry.language.to_dict()
    return {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava",
        **{key: language[key] for key in ORIGINAL_LANGUAGE_KEYS if language.get(key) is not None},
        "tie_word_embeddings": language["tie_word_embeddings"],
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_newline_position": "one_token",
        "mm_spatial_pool_mode": "bilinear",
        "image_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": "(1x1),...,(6x6)",
    }


def huggingface_config(model) -> dict:
    """Return config.json as the Hugging Face layout has it."""
    from transformers import LlavaOnevisionConfig

    geometry = model.geometry
    config = LlavaOnevisionConfig(
        vision_config=geometry.vision, text_config=geometry.language, vision_feature_layer=-1
    )
    return json.loads(config.to_json_string(use_diff=False))


if __name__ == "__main__":
    main()
