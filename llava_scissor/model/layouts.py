"""The two layouts of a checkpoint's configuration, read into one `Geometry`."""

from __future__ import annotations

import json
import math
import re
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import LlavaOnevisionConfig, PreTrainedConfig, Qwen2Config, SiglipVisionConfig

from llava_scissor.errors import CheckpointError
from llava_scissor.model.files import read_json
from llava_scissor.model.geometry import GenerationDefaults, Geometry, Layout, Merge

Values = dict[str, Any]
Allowed = dict[str, tuple[object, ...]]

# Vision towers of the original layout, which names its tower and says nothing about it. Upstream deletes the
# last block of the 27 and uses the output of the 26th.
TOWERS: dict[str, Values] = {
    "siglip-so400m-patch14-384": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    }
}
_NUM_DELETED_BLOCKS = 1
_VISION_SIZES = tuple(TOWERS["siglip-so400m-patch14-384"])
_VISION_KEYS = (*_VISION_SIZES, "hidden_act", "layer_norm_eps")
_LANGUAGE_SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size"),
    *("num_hidden_layers", "num_attention_heads"),
)
ORIGINAL_LANGUAGE_KEYS = (
    *(*_LANGUAGE_SIZES, "num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps"),
    *("rope_theta", "rope_scaling", "rope_parameters"),
    *("use_sliding_window", "sliding_window", "max_window_layers"),
)

# What a key may say, since checkpoints of other models share the layouts; None stands for null and for a key
# that is absent. Keys that are not mentioned are ignored.
_ORIGINAL: Allowed = {
    "mm_projector_type": ("mlp2x_gelu", None),
    "mm_resampler_type": (None,),
    "mm_spatial_pool_mode": ("bilinear", None),
    "mm_use_im_start_end": (False, None),
    "add_faster_video": (False, None),
    "mm_use_zip": (True, False, "true", "false", "True", "False", None),
    "mm_patch_merge_type": ("flat", "spatial", "spatial_unpad", None),
}
_ORIGINAL_SPATIAL: Allowed = {"mm_newline_position": ("one_token", "no_token", None)}
_HUGGINGFACE: Allowed = {
    "model_type": ("llava_onevision", None),
    "vision_feature_select_strategy": ("full", None),
    "projector_hidden_act": ("gelu", None),
    "multimodal_projector_bias": (True, None),
}


def read_geometry(directory: Path) -> Geometry:
    """Read config.json, in either layout, and the settings that lie beside it.

    Raises:
        CheckpointError: a file is missing or invalid, or the model is of a kind that is not supported.
    """
    path = directory / "config.json"
    config = read_json(path)
    try:
        if "vision_config" in config or "text_config" in config:
            return _read_huggingface(config, directory)
        if "mm_vision_tower" in config:
            return _read_original(config, directory)
    except (StrictDataclassError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not valid: {error}") from error
    raise CheckpointError(
        f"{path} describes a {config.get('model_type')!r} model: expected LLaVA-OneVision, with "
        "mm_vision_tower (original layout) or vision_config and text_config (Hugging Face layout)"
    )


def _read_original(config: Values, directory: Path) -> Geometry:
    _check_values(config, _ORIGINAL)
    architectures = config.get("architectures") or ["LlavaQwenForCausalLM"]
    if not all("Qwen" in str(name) and "Moe" not in str(name) for name in architectures):
        raise CheckpointError(f"language model of {architectures[0]!r} is not supported: expected Qwen2")
    if config.get("rope_theta") is None and not config.get("rope_parameters"):
        raise CheckpointError("config.json has no rope_theta: the language model needs it")
    _check_sizes(config, _LANGUAGE_SIZES)  # before the defaults of Qwen2Config stand in for what is absent
    language = Qwen2Config(**{key: config[key] for key in ORIGINAL_LANGUAGE_KEYS if key in config})
    _check_language(language)
    tower, num_deleted_blocks = config.get("mm_vision_tower_config"), 0
    if tower is None:
        tower = TOWERS.get(PurePosixPath(str(config["mm_vision_tower"])).name)
        num_deleted_blocks = _NUM_DELETED_BLOCKS
    if not isinstance(tower, dict):
        raise CheckpointError(
            f"vision tower {config['mm_vision_tower']!r} is not supported: expected {' or '.join(TOWERS)}, "
            "or the sizes of another SigLIP tower as an object under mm_vision_tower_config"
        )
    _check_sizes(tower, _VISION_SIZES)
    vision = {key: tower[key] for key in _VISION_KEYS if key in tower}
    return Geometry(
        layout="original",
        vision=SiglipVisionConfig(**vision, vision_use_head=False),
        language=language,
        use_newline=_has_newline(config),
        num_unused_blocks=num_deleted_blocks,
        pool_stride=_positive(config, "mm_spatial_pool_stride", 2),
        default_num_frames=_positive(config, "default_num_frames", 32),
        image_merge=_read_merge(config),
        **_read_images(
            "original",
            config.get("image_aspect_ratio"),
            config.get("image_grid_pinpoints"),
            vision["image_size"],
        ),
        generation=_read_generation(directory, config.get("eos_token_id")),
    )


def _read_images(layout: Layout, mode: object, grids: Any, tile_size: int) -> Values:
    """Read how images are shown. What is not supported is no error: the checkpoint still works for videos.

    Args:
        layout: the original one gives width before height and has more modes.
        mode: `square`, `pad`, `anyres`, `anyres_max_` and the largest number of tiles, or None for `square`.
        grids: sides of each grid in pixels, as a list or as text; or, as "(1x1),...,(6x6)", the first and the
            last numbers of tiles.
        tile_size: height and width of a tile in pixels.
    """
    is_original = layout == "original"
    key = "image_aspect_ratio" if is_original else "vision_aspect_ratio"
    modes = "square, pad, anyres or anyres_max_9" if is_original else "anyres_max_9 or another number"
    if is_original and mode in ("square", "pad", None):
        return {"image_views": mode or "square"}
    capped = re.fullmatch(r"anyres_max_([1-9]\d{0,3})", str(mode))
    if not capped and not (is_original and mode == "anyres"):
        return {"image_problem": f"{key} {mode!r} is not supported: expected {modes}"}
    try:
        pairs = _read_grids(grids, tile_size)
    except (ValueError, TypeError, RecursionError):
        return {
            "image_problem": f"image_grid_pinpoints {grids!r} is not supported: expected pairs of multiples of "
            f'{tile_size} (pixels of a tile), or text such as "(1x1),...,(6x6)"'
        }
    rows_and_columns = tuple(pair[::-1] for pair in pairs) if is_original else pairs
    return {"image_grids": rows_and_columns, "max_tiles": int(capped[1]) if capped else None}


def _read_grids(grids: Any, tile_size: int) -> tuple[tuple[int, int], ...]:
    """Return numbers of tiles in the order of the checkpoint. Of equally good grids, the first is chosen."""
    if isinstance(grids, str):
        bounds = re.fullmatch(r"\((\d{1,2})x(\d{1,2})\),\.\.\.,\((\d{1,2})x(\d{1,2})\)", grids)
        if bounds:
            first_a, first_b, last_a, last_b = map(int, bounds.groups())
            pairs = tuple(product(range(first_a, last_a + 1), range(first_b, last_b + 1)))
            grids = [(a * tile_size, b * tile_size) for a, b in pairs]
        else:
            grids = json.loads(grids.replace("(", "[").replace(")", "]"))
    sides = [(a, b) for a, b in grids]
    if not sides or not all(type(n) is int and n > 0 and n % tile_size == 0 for pair in sides for n in pair):
        raise ValueError(grids)
    return tuple((a // tile_size, b // tile_size) for a, b in sides)


def _has_newline(config: Values) -> bool:
    """Follow upstream, where "spatial_unpad" appends one vector to a video, "spatial" and "flat" none.

    Checkpoints of the compressing fork (`mm_use_zip`) never have one: there, merging is always flat.
    """
    merge = _read_merge(config)
    if merge != "flat":
        _check_values(config, _ORIGINAL_SPATIAL)
    return merge == "spatial_unpad" and config.get("mm_newline_position") != "no_token"


def _read_merge(config: Values) -> Merge:
    """Return how visual tokens are put together; `mm_newline_position` is only about videos."""
    is_compressing_fork = str(config.get("mm_use_zip")).lower() == "true"
    return "flat" if is_compressing_fork else config.get("mm_patch_merge_type") or "flat"


def _read_huggingface(config: Values, directory: Path) -> Geometry:
    _check_values(config, _HUGGINGFACE)
    for part, kind in (("vision_config", "siglip_vision_model"), ("text_config", "qwen2")):
        inner = config.get(part) or {}
        if not isinstance(inner, dict):
            raise CheckpointError(f"config.json: {part} should be an object, got {inner!r}")
        _check_values(inner, {"model_type": (kind, None)}, f"{part}.")
    # Keys that a nested config leaves out have transformers' own defaults, as they had when it was saved.
    parsed = LlavaOnevisionConfig.from_dict(config)
    vision, language = parsed.vision_config, parsed.text_config
    assert isinstance(vision, SiglipVisionConfig)
    assert isinstance(language, Qwen2Config)
    _check_sizes(vision, _VISION_SIZES)
    assert isinstance(vision.image_size, int)
    _check_language(language)
    num_blocks = _selected_block(parsed.vision_feature_layer, vision.num_hidden_layers)
    num_unused_blocks = vision.num_hidden_layers - num_blocks
    vision.num_hidden_layers, vision.vision_use_head = num_blocks, False
    return Geometry(
        layout="huggingface",
        vision=vision,
        language=language,
        use_newline=True,
        num_unused_blocks=num_unused_blocks,
        **_read_images(
            "huggingface", parsed.vision_aspect_ratio, parsed.image_grid_pinpoints, vision.image_size
        ),
        generation=_read_generation(directory, language.eos_token_id),
        **_read_normalisation(directory),
    )


def _selected_block(layer: int | list[int], num_blocks: int) -> int:
    """Return how many blocks a hidden state needs; hidden state 0 is the input of the first block."""
    if not isinstance(layer, int):
        raise CheckpointError(f"vision_feature_layer {layer} is not supported: expected one layer")
    selected = layer if layer >= 0 else num_blocks + 1 + layer
    if not 1 <= selected <= num_blocks:
        raise CheckpointError(f"vision_feature_layer {layer} is none of the tower's {num_blocks} blocks")
    return selected


def _read_normalisation(directory: Path) -> Values:
    """Read what pixels are normalised with; transformers 5 writes it into processor_config.json."""
    path = directory / "processor_config.json"
    config = read_json(path).get("image_processor") if path.is_file() else None
    if not isinstance(config, dict):
        path = directory / "preprocessor_config.json"
        config = read_json(path) if path.is_file() else {}
    statistics = {}
    for key in ("image_mean", "image_std"):
        values = config.get(key)
        if values is None:
            continue
        is_triple = isinstance(values, list) and len(values) == 3 and all(map(_is_number, values))
        if not is_triple or (key == "image_std" and min(values) <= 0):
            raise CheckpointError(
                f"{path}: {key} should be three numbers, those of std positive, got {values!r}"
            )
        statistics[key] = tuple(float(value) for value in values)
    return statistics


def _read_generation(directory: Path, eos_token_id: object) -> GenerationDefaults:
    """Read generation_config.json; a checkpoint without it stops at the ids of its config.json."""
    path = directory / "generation_config.json"
    config = read_json(path) if path.is_file() else {}
    stop = config.get("eos_token_id", eos_token_id)
    stop_ids = stop if isinstance(stop, list) else [] if stop is None else [stop]
    if not all(type(i) is int and i >= 0 for i in stop_ids):
        raise CheckpointError(f"{path}: eos_token_id should be token ids, got {stop!r}")
    numbers = {}
    for key, bound in (("repetition_penalty", 0), ("temperature", 0), ("top_p", 0), ("top_k", -1)):
        value = config.get(key)
        if value is None:
            continue
        if not _is_number(value) or value <= bound:
            raise CheckpointError(f"{path}: {key} should be a number above {bound}, got {value!r}")
        numbers[key] = int(value) if key == "top_k" else float(value)
    return GenerationDefaults(stop_ids=tuple(stop_ids), **numbers)


def _check_values(config: Values, allowed: Allowed, prefix: str = "") -> None:
    for key, values in allowed.items():
        if config.get(key) not in values:
            expected = " or ".join(repr(value) for value in values if value is not None) or "null"
            raise CheckpointError(f"{prefix}{key} {config[key]!r} is not supported: expected {expected}")


def _check_sizes(config: Values | PreTrainedConfig, names: tuple[str, ...]) -> None:
    values = config if isinstance(config, dict) else config.to_dict()
    for name in names:
        value = values.get(name)
        if type(value) is not int or value < 1:
            raise CheckpointError(f"config.json: {name} should be a positive integer, got {value!r}")


def _check_language(config: Qwen2Config) -> None:
    _check_sizes(config, (*_LANGUAGE_SIZES, "num_key_value_heads", "max_position_embeddings"))


def _positive(config: Values, key: str, default: int) -> int:
    if config.get(key) is None:
        return default
    _check_sizes(config, (key,))
    return config[key]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
