from __future__ import annotations

import pytest

from llava_scissor.errors import CheckpointError
from llava_scissor.model.geometry import Geometry
from llava_scissor.model.layouts import read_geometry
from tests.model.checkpoints import SMALL_TOWER, change_json, write_json, write_original_config

SO400M = {"mm_vision_tower": "google/siglip-so400m-patch14-384", "mm_vision_tower_config": "absent"}
PINPOINTS = [[75 * rows, 75 * columns] for rows in range(1, 7) for columns in range(1, 7)]
HUGGINGFACE = {
    "model_type": "llava_onevision",
    "vision_config": {"model_type": "siglip_vision_model", **SMALL_TOWER},
    "text_config": {"model_type": "qwen2", "hidden_size": 48, "rope_theta": 1e6, "eos_token_id": 7},
}


def original(directory, **changes):
    write_original_config(directory, **changes)
    return read_geometry(directory)


def huggingface(directory, **changes):
    write_json(directory / "config.json", HUGGINGFACE | changes)
    return read_geometry(directory)


class TestOriginal:
    def test_the_extension_describes_a_tower(self, tmp_path):
        geometry = original(tmp_path, default_num_frames=8)
        assert geometry.layout == "original"
        assert {key: getattr(geometry.vision, key) for key in SMALL_TOWER} == SMALL_TOWER
        assert not geometry.vision.vision_use_head
        assert (geometry.num_unused_blocks, geometry.pool_stride, geometry.default_num_frames) == (0, 2, 8)
        assert geometry.image_mean == geometry.image_std == (0.5, 0.5, 0.5)

    @pytest.mark.parametrize("path", ["google/siglip-so400m-patch14-384", "/data/siglip-so400m-patch14-384/"])
    def test_the_real_tower_is_known_by_its_name_wherever_it_lay(self, path, tmp_path):
        geometry = original(tmp_path, **SO400M | {"mm_vision_tower": path})
        assert (geometry.vision.num_hidden_layers, geometry.num_unused_blocks) == (26, 1)
        assert (geometry.vision.hidden_size, geometry.vision.intermediate_size) == (1152, 4304)
        assert geometry.vision.hidden_act == "gelu_pytorch_tanh"
        assert geometry.vision.layer_norm_eps == 1e-6
        assert (geometry.tokens_per_frame, geometry.default_num_frames) == (196, 32)

    @pytest.mark.parametrize("rope", [{}, {"rope_theta": "absent", "rope_parameters": {"rope_theta": 1e6}}])
    def test_the_rotary_base_comes_from_the_config(self, rope, tmp_path):
        language = original(tmp_path, **rope).language
        assert language.rope_parameters["rope_theta"] == 1e6
        assert (language.hidden_size, language.num_key_value_heads, language.rms_norm_eps) == (48, 2, 1e-6)

    def test_a_sliding_window_that_is_off_stays_off(self, tmp_path):
        language = original(tmp_path, use_sliding_window=False, sliding_window=16).language
        assert language.sliding_window is None
        assert set(language.layer_types) == {"full_attention"}

    @pytest.mark.parametrize(
        ("changes", "use_newline"),
        [
            ({}, True),
            ({"mm_newline_position": "absent"}, True),
            ({"mm_newline_position": "no_token"}, False),
            ({"mm_patch_merge_type": "spatial"}, False),
            ({"mm_patch_merge_type": "flat"}, False),
            ({"mm_patch_merge_type": "absent"}, False),
            ({"mm_patch_merge_type": "flat", "mm_newline_position": "grid"}, False),
            ({"mm_use_zip": True}, False),
            ({"mm_use_zip": "true"}, False),
            ({"mm_use_zip": False}, True),
            ({"mm_use_zip": "false"}, True),
        ],
    )
    def test_a_newline_follows_the_video_where_upstream_has_one(self, changes, use_newline, tmp_path):
        assert original(tmp_path, **changes).use_newline is use_newline

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"mm_projector_type": "linear"},
                "mm_projector_type 'linear' is not supported: expected 'mlp2x_gelu'",
            ),
            (
                {"mm_resampler_type": "perceiver"},
                "mm_resampler_type 'perceiver' is not supported: expected null",
            ),
            ({"mm_spatial_pool_mode": "average"}, "mm_spatial_pool_mode 'average' is not supported"),
            (
                {"mm_spatial_pool_mode": "max"},
                "mm_spatial_pool_mode 'max' is not supported: expected 'bilinear'",
            ),
            ({"mm_newline_position": "grid"}, "mm_newline_position 'grid' is not supported"),
            ({"mm_newline_position": "frame"}, "mm_newline_position 'frame' is not supported"),
            ({"mm_patch_merge_type": "unpad"}, "mm_patch_merge_type 'unpad' is not supported"),
            ({"add_faster_video": True}, "add_faster_video True is not supported: expected False"),
            ({"mm_use_im_start_end": True}, "mm_use_im_start_end True is not supported"),
            ({"mm_use_zip": "maybe"}, "mm_use_zip 'maybe' is not supported"),
            ({"architectures": ["LlavaLlamaForCausalLM"]}, "'LlavaLlamaForCausalLM' is not supported"),
            ({"architectures": ["LlavaQwenMoeForCausalLM"]}, "'LlavaQwenMoeForCausalLM' is not supported"),
            (SO400M | {"mm_vision_tower": "openai/clip-vit"}, "tower 'openai/clip-vit' is not supported"),
            ({"mm_vision_tower_config": [1]}, "tower 'somewhere/siglip-tiny' is not supported"),
            (
                {"mm_vision_tower_config": SMALL_TOWER | {"patch_size": 0}},
                "patch_size should be a positive integer",
            ),
            (
                {"mm_vision_tower_config": {"patch_size": 14}},
                "hidden_size should be a positive integer, got None",
            ),
            ({"rope_theta": "absent"}, "no rope_theta"),
            ({"vocab_size": "absent"}, "vocab_size should be a positive integer, got None"),
            ({"num_hidden_layers": 2.5}, "num_hidden_layers should be a positive integer, got 2.5"),
            ({"num_key_value_heads": 0}, "num_key_value_heads should be a positive integer, got 0"),
            ({"rms_norm_eps": "small"}, "config.json is not valid"),
            ({"mm_spatial_pool_stride": 0}, "mm_spatial_pool_stride should be a positive integer"),
            ({"default_num_frames": "8"}, "default_num_frames should be a positive integer"),
        ],
    )
    def test_what_is_not_supported_is_refused_by_name(self, changes, message, tmp_path):
        with pytest.raises(CheckpointError, match=message):
            original(tmp_path, **changes)


class TestHuggingFace:
    def test_the_nested_configs_describe_the_model(self, tmp_path):
        geometry = huggingface(tmp_path)
        assert geometry.layout == "huggingface"
        assert geometry.use_newline
        assert (geometry.vision.hidden_size, geometry.language.hidden_size) == (32, 48)
        assert geometry.language.rope_parameters["rope_theta"] == 1e6
        assert geometry.generation.stop_ids == (7,)

    @pytest.mark.parametrize(("layer", "blocks"), [(-1, 3), (3, 3), (-2, 2), (1, 1), (-3, 1)])
    def test_the_tower_ends_at_the_selected_layer(self, layer, blocks, tmp_path):
        geometry = huggingface(tmp_path, vision_feature_layer=layer)
        assert geometry.vision.num_hidden_layers == blocks
        assert geometry.num_unused_blocks == 3 - blocks

    @pytest.mark.parametrize("is_unified", [True, False])
    def test_pixel_statistics_come_from_the_preprocessor(self, tmp_path, is_unified):
        values = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 2]}
        if is_unified:  # as transformers 5 saves it; a file left over from before does not count
            write_json(tmp_path / "processor_config.json", {"image_processor": values})
            write_json(tmp_path / "preprocessor_config.json", {"image_mean": [0, 0, 0]})
        else:
            write_json(tmp_path / "processor_config.json", {"processor_class": "LlavaOnevisionProcessor"})
            write_json(tmp_path / "preprocessor_config.json", values)
        geometry = huggingface(tmp_path)
        assert (geometry.image_mean, geometry.image_std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 2.0))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model_type": "llava_next"}, "model_type 'llava_next' is not supported"),
            (
                {"vision_config": {"model_type": "clip_vision_model"}},
                "vision_config.model_type 'clip_vision_model'",
            ),
            ({"text_config": {"model_type": "llama"}}, "text_config.model_type 'llama' is not supported"),
            ({"text_config": [1]}, "text_config should be an object"),
            ({"vision_config": {"hidden_size": "wide"}}, "config.json is not valid.*hidden_size"),
            ({"text_config": {"vocab_size": -1}}, "vocab_size should be a positive integer, got -1"),
            ({"vision_feature_layer": [-1, -2]}, r"vision_feature_layer \[-1, -2\] is not supported"),
            ({"vision_feature_layer": 0}, "vision_feature_layer 0 is none of the tower's 3 blocks"),
            ({"vision_feature_layer": -4}, "vision_feature_layer -4 is none of the tower's 3 blocks"),
            ({"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy 'default'"),
            ({"projector_hidden_act": "relu"}, "projector_hidden_act 'relu' is not supported"),
            ({"multimodal_projector_bias": False}, "multimodal_projector_bias False is not supported"),
        ],
    )
    def test_what_is_not_supported_is_refused_by_name(self, changes, message, tmp_path):
        with pytest.raises(CheckpointError, match=f"(?s){message}"):
            huggingface(tmp_path, **changes)

    @pytest.mark.parametrize(
        "values",
        [{"image_mean": [0.5]}, {"image_mean": "x"}, {"image_std": [1, 0, 1]}, {"image_std": [1, None, 1]}],
    )
    def test_pixel_statistics_must_be_three_numbers(self, values, tmp_path):
        write_json(tmp_path / "preprocessor_config.json", values)
        with pytest.raises(CheckpointError, match="should be three numbers"):
            huggingface(tmp_path)


class TestImages:
    def test_the_published_values(self, tmp_path):
        for geometry in (original(tmp_path), huggingface(tmp_path, image_grid_pinpoints=PINPOINTS)):
            assert (geometry.image_views, geometry.image_merge) == ("anyres", "spatial_unpad")
            assert set(geometry.image_grids) == set(Geometry.image_grids)
            assert (len(geometry.image_grids), geometry.max_tiles, geometry.image_problem) == (36, 9, "")

    @pytest.mark.parametrize(
        ("grids", "rows_and_columns"),
        [
            ("(1x1),...,(2x3)", ((1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2))),
            ([[150, 75], [75, 225]], ((1, 2), (3, 1))),
            ("[(150, 75), (75, 225)]", ((1, 2), (3, 1))),
        ],
    )
    def test_width_comes_first_in_the_original_layout(self, grids, rows_and_columns, tmp_path):
        assert original(tmp_path, image_grid_pinpoints=grids).image_grids == rows_and_columns

    def test_height_comes_first_in_the_hugging_face_layout(self, tmp_path):
        geometry = huggingface(tmp_path, image_grid_pinpoints=[[150, 75], [75, 225]])
        assert geometry.image_grids == ((2, 1), (1, 3))

    @pytest.mark.parametrize(
        ("mode", "views", "max_tiles"),
        [("anyres", "anyres", None), ("anyres_max_4", "anyres", 4), ("pad", "pad", 9), ("square", "square", 9),
         ("absent", "square", 9), (None, "square", 9)],
    )  # fmt: skip
    def test_modes_of_the_original_layout(self, mode, views, max_tiles, tmp_path):
        geometry = original(tmp_path, image_aspect_ratio=mode)
        assert (geometry.image_views, geometry.max_tiles, geometry.image_problem) == (views, max_tiles, "")

    def test_the_largest_number_of_tiles_in_the_hugging_face_layout(self, tmp_path):
        values = {"image_grid_pinpoints": PINPOINTS, "vision_aspect_ratio": "anyres_max_4"}
        assert huggingface(tmp_path, **values).max_tiles == 4

    @pytest.mark.parametrize(
        ("changes", "merge", "has_newline"),
        [
            ({}, "spatial_unpad", True),
            ({"mm_newline_position": "no_token"}, "spatial_unpad", True),
            ({"mm_patch_merge_type": "spatial"}, "spatial", False),
            ({"mm_patch_merge_type": "absent"}, "flat", False),
            ({"mm_use_zip": "true"}, "flat", False),
        ],
    )
    def test_the_merge_of_images_goes_by_the_merge_type_alone(self, changes, merge, has_newline, tmp_path):
        geometry = original(tmp_path, **changes)
        assert (geometry.image_merge, geometry.has_newline) == (merge, has_newline)

    @pytest.mark.parametrize("mode", ["highres", "anyres_max_0", "anyres_max_", "anyresque", 9, ["pad"]])
    def test_another_mode_is_named(self, mode, tmp_path):
        problem = original(tmp_path, image_aspect_ratio=mode).image_problem
        assert problem.startswith(
            f"image_aspect_ratio {mode!r} is not supported: expected square, pad, anyres"
        )

    @pytest.mark.parametrize("mode", ["anyres", "pad", "square"])
    def test_the_hugging_face_layout_knows_one_mode(self, mode, tmp_path):
        problem = huggingface(tmp_path, vision_aspect_ratio=mode).image_problem
        assert problem.startswith(f"vision_aspect_ratio {mode!r} is not supported: expected anyres_max_9")

    @pytest.mark.parametrize(
        "grids",
        [None, [], "", 7, [75], [[75]], [[75, 75, 75]], [[75, 80]], [[75.0, 75.0]], [[0, 75]], [[-75, 75]],
         "[[75, 75]", "(1x1)", "(0x1),...,(2x2)", "(2x2),...,(1x1)", "(1x1),...,(100x100)", "[" * 100_000],
    )  # fmt: skip
    def test_other_grids_are_named(self, grids, tmp_path):
        problem = original(tmp_path, image_grid_pinpoints=grids).image_problem
        assert problem.startswith(f"image_grid_pinpoints {grids!r} is not supported: expected pairs of mult")

    def test_grids_of_another_tower_are_named(self, tmp_path):
        problem = huggingface(tmp_path).image_problem  # transformers' default: multiples of 384
        assert problem.startswith("image_grid_pinpoints [[384, 384], ")


class TestGeneration:
    def test_the_file_is_honoured_but_for_do_sample(self, tmp_path):
        values = {"do_sample": True, "eos_token_id": [3, 0], "repetition_penalty": 1.1}
        write_json(
            tmp_path / "generation_config.json", values | {"temperature": 0.7, "top_p": 0.8, "top_k": 20}
        )
        defaults = original(tmp_path, eos_token_id=9).generation
        assert defaults.stop_ids == (3, 0)
        assert (defaults.repetition_penalty, defaults.temperature) == (1.1, 0.7)
        assert (defaults.top_p, defaults.top_k) == (0.8, 20)
        assert not hasattr(defaults, "do_sample")

    def test_without_the_file_the_config_says_where_to_stop(self, tmp_path):
        defaults = original(tmp_path, eos_token_id=9).generation
        assert defaults.stop_ids == (9,)
        assert (defaults.repetition_penalty, defaults.temperature) == (1.0, 1.0)
        assert (defaults.top_p, defaults.top_k) == (1.0, 0)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("repetition_penalty", 0),
            ("repetition_penalty", "1.1"),
            ("temperature", -1),
            ("top_p", True),
            ("top_k", -1),
        ],
    )
    def test_impossible_numbers_are_refused(self, key, value, tmp_path):
        write_json(tmp_path / "generation_config.json", {key: value})
        with pytest.raises(CheckpointError, match=f"{key} should be a number above"):
            original(tmp_path)

    def test_the_config_must_give_ids_too(self, tmp_path):
        with pytest.raises(CheckpointError, match="eos_token_id should be token ids, got 'end'"):
            original(tmp_path, eos_token_id="end")

    @pytest.mark.parametrize("value", ["end", [3, None], -1, True])
    def test_stop_tokens_must_be_ids(self, value, tmp_path):
        write_json(tmp_path / "generation_config.json", {"eos_token_id": value})
        with pytest.raises(CheckpointError, match="eos_token_id should be token ids"):
            original(tmp_path)


def test_another_kind_of_model_is_named(tmp_path):
    write_json(tmp_path / "config.json", {"model_type": "llama"})
    with pytest.raises(CheckpointError, match="describes a 'llama' model: expected LLaVA-OneVision"):
        read_geometry(tmp_path)


def test_a_change_of_one_key_changes_one_thing(tmp_path):
    write_original_config(tmp_path)
    change_json(tmp_path / "config.json", mm_spatial_pool_stride=3)
    assert read_geometry(tmp_path).tokens_per_frame == 4
