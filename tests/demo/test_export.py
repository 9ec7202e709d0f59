from __future__ import annotations

import json

import numpy as np
import torch
from safetensors.torch import load_file

from llava_scissor.config import GenerationConfig, VideoConfig
from llava_scissor.demo.clips import scene_of_seed
from llava_scissor.demo.drawing import render
from llava_scissor.demo.export import export
from llava_scissor.generation import ask
from llava_scissor.generation.decode import find_stop_ids
from llava_scissor.video import VideoClip

FILES = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def test_the_files_are_those_of_the_original_layout(untrained_directory, untrained) -> None:
    assert {path.name for path in untrained_directory.iterdir()} == FILES
    config = json.loads((untrained_directory / "config.json").read_text(encoding="utf-8"))
    assert config["mm_patch_merge_type"] == "spatial_unpad"
    assert config["mm_newline_position"] == "one_token"
    assert config["mm_spatial_pool_mode"] == "bilinear"
    assert untrained.geometry.layout == "original"


def test_weights_are_stored_in_float16_without_what_only_training_needs(untrained_directory, network) -> None:
    weights = load_file(untrained_directory / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert not any("patch_head" in name or "rows_and_columns" in name for name in weights)
    parts = (network.vision_tower, network.projector, network.language_model)
    num_parameters = sum(p.numel() for part in parts for p in part.parameters())
    norm = network.vision_tower.post_layernorm  # stored by SigLIP and not used, as it is upstream
    counted = sum(tensor.numel() for tensor in weights.values())
    assert counted - network.image_newline.numel() in (
        num_parameters,
        num_parameters - sum(p.numel() for p in norm.parameters()),
    )


def test_every_weight_is_loaded_as_it_was(network, untrained) -> None:
    trained, loaded = dict(network.named_parameters()), dict(untrained.named_parameters())
    assert len(loaded) > 50
    for name, tensor in loaded.items():
        torch.testing.assert_close(tensor, trained[name].half().float(), rtol=0, atol=0)


def test_geometry_and_stop_tokens(untrained) -> None:
    geometry = untrained.geometry
    assert (geometry.image_size, geometry.patches_per_side, geometry.tokens_per_frame) == (128, 16, 64)
    assert (geometry.default_num_frames, geometry.use_newline, geometry.context_length) == (8, True, 4096)
    assert untrained.tokenizer.convert_ids_to_tokens(find_stop_ids(untrained)) == ["<|im_end|>"]
    assert untrained.dtype == torch.float32


def test_exporting_again_replaces(network, untrained_directory, tmp_path) -> None:
    for _ in range(2):
        export(network, tmp_path / "model")
    for name in FILES:
        assert (tmp_path / "model" / name).read_bytes() == (untrained_directory / name).read_bytes()


def test_the_whole_way_runs(untrained) -> None:
    scene, rng = scene_of_seed((1,))
    frames = torch.from_numpy(render(scene, rng, 64, np.linspace(0, 1, 8)))
    clip = VideoClip(frames, tuple(range(8)), tuple(i / 8 for i in range(8)), 8, 8.0, 0, "scene")
    answer = ask(
        untrained, clip, "What is the background?", VideoConfig(), GenerationConfig(max_new_tokens=3)
    )
    assert (answer.compression.num_input, answer.compression.num_kept) == (512, 512)
    assert 1 <= answer.num_new_tokens <= 3
