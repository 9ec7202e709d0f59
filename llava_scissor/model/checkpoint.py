"""From a checkpoint directory to a model."""

from __future__ import annotations

import re
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]  # whichever its version uses
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from llava_scissor.compression import Compressor
from llava_scissor.config import ModelConfig
from llava_scissor.errors import CheckpointError, InputError
from llava_scissor.model.files import list_weights, read_weights
from llava_scissor.model.geometry import Geometry
from llava_scissor.model.layouts import read_geometry
from llava_scissor.model.onevision import OneVision
from llava_scissor.model.placement import (
    DISK,
    DTYPES,
    DeviceMap,
    MaxMemory,
    choose_attention,
    choose_device,
    choose_dtype,
    locate,
    plan_device_map,
    spread,
)
from llava_scissor.model.prompt import TURN_END, TURN_START
from llava_scissor.model.quantisation import LinearQuantiser
from llava_scissor.model.weight_names import HEAD, RenamedWeights, rename_weights

DEMO = "demo"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ["*.json", "*.safetensors", "merges.txt"]
NUM_LISTED = 8  # weights that a message names of each kind of problem


def load_model(
    path: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    attn_implementation: str = "auto",
    compressor: Compressor | None = None,
    device_map: str | None = None,
    max_memory: MaxMemory | None = None,
    quantization: str | None = None,
) -> OneVision:
    """Load a checkpoint in the original or the Hugging Face layout, ready to answer.

    Args:
        path: a directory, a hub id `owner/name`, or `demo` for the small model that ships in the package.
        device: a torch device, or `auto` for CUDA if there is a GPU and the CPU otherwise.
        dtype: `float32`, `bfloat16` or `float16`, or `auto` for what is stored, but float32 instead of
            float16 on a CPU, which lacks fast kernels for it.
        attn_implementation: `sdpa`, `eager` or `flash_attention_2`, or `auto` for flash_attention_2 if it is
            installed and can be used, else sdpa.
        compressor: what reduces the visual tokens of a video; None keeps them all.
        device_map: `auto` spreads the layers of the language model over all GPUs, then the CPU's memory, then
            the disk; None puts everything on `device`.
        max_memory: what weights may take, by GPU number and "cpu", for `device_map`; see `plan_device_map`.
        quantization: `8bit` or `4bit` for the linear layers of the language model; None for none.

    Returns:
        The model in evaluation mode, without gradients. Its rotary table is in float32 whatever the dtype.

    Raises:
        CheckpointError: the checkpoint is incomplete, damaged or of a kind that is not supported.
        InputError: a device, dtype, attention or quantization that does not exist here, too little memory for
            a device map, or arguments that exclude each other.
        MissingDependencyError: flash_attention_2 or bitsandbytes was asked for and is not installed.

    Cost: one pass over the files, memory-mapped on a CPU; what is cast or quantised is copied, one weight at
    a time.
    """
    _check_arguments(device, device_map, max_memory, quantization)
    directory = find_directory(path)
    geometry = read_geometry(directory)
    tokenizer = read_tokenizer(directory)
    weights = rename_weights(list_weights(directory), geometry)
    target = choose_device(device)
    weight_dtype = choose_dtype(dtype, weights.by_name, target)
    attention = choose_attention(attn_implementation, target, weight_dtype)
    model = build_empty(geometry, tokenizer, weights, compressor, attention)
    _check(model, weights)
    placed: DeviceMap = (
        {"": str(target)} if device_map is None else plan_device_map(model, weight_dtype, max_memory)
    )
    quantiser = LinearQuantiser(model, quantization, weight_dtype) if quantization else None
    _fill(model, weights, placed, weight_dtype, quantiser)
    if device_map is not None:
        spread(model, placed, weights.by_name, weight_dtype)
    return model.requires_grad_(False).eval()


def load_model_from(
    config: ModelConfig, compressor: Compressor | None = None, max_memory: MaxMemory | None = None
) -> OneVision:
    """Load the model that the section `model` of the settings describes.

    Every field of the section is an argument of `load_model` with the same name. So a field that `load_model`
    does not know is an error here, and none is dropped.

    Args:
        config: the section.
        compressor: as for `load_model`.
        max_memory: as for `load_model`.

    Returns:
        The model, as `load_model` returns it.

    Raises:
        CheckpointError: as `load_model`.
        InputError: as `load_model`.
        MissingDependencyError: as `load_model`.
    """
    return load_model(**config.model_dump(), compressor=compressor, max_memory=max_memory)


def _check_arguments(
    device: str, device_map: str | None, max_memory: MaxMemory | None, quantization: str | None
) -> None:
    if device_map not in (None, "auto"):
        raise InputError(f"device_map {device_map!r}: expected 'auto' or None")
    if device_map and device != "auto":
        raise InputError(f"device_map 'auto' chooses the devices itself: leave out device {device!r}")
    if device_map and quantization:
        raise InputError(f"quantization {quantization!r} needs one device: leave out device_map 'auto'")
    if max_memory is not None and not device_map:
        raise InputError("max_memory is for device_map 'auto' alone: give both or neither")


def find_directory(path: str | Path) -> Path:
    """Return the directory of a checkpoint, downloaded first if it is on the Hugging Face hub.

    Raises:
        CheckpointError: there is no such directory or hub id, or the download fails.
    """
    if path == DEMO:
        return Path(str(files("llava_scissor") / "demo" / "model"))
    directory = Path(path).expanduser()
    if directory.is_dir():
        return directory
    if directory.exists():
        raise CheckpointError(f"{path} is a file: give the directory that holds config.json and the weights")
    if not _HUB_ID.fullmatch(str(path)):
        raise CheckpointError(f"{path} is neither a directory nor a hub id of the form owner/name")
    try:
        return Path(snapshot_download(str(path), allow_patterns=_HUB_FILES))
    except (OSError, ValueError, HTTPError) as error:
        raise CheckpointError(
            f"{path} is not a directory here and could not be had from the Hugging Face hub: {error}"
        ) from error


def read_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer from tokenizer.json, or from the vocabulary and merges of older Qwen2 checkpoints.

    Raises:
        CheckpointError: neither is there, or what is there cannot be read or has no ChatML tokens.
    """
    if (directory / "tokenizer.json").is_file():
        kind = PreTrainedTokenizerFast
    elif (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        kind = Qwen2Tokenizer
    else:
        raise CheckpointError(
            f"{directory} has no tokenizer: expected tokenizer.json, or vocab.json and merges.txt"
        )
    try:
        tokenizer = kind.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise CheckpointError(f"the tokenizer in {directory} cannot be read: {error}") from error
    if not {TURN_START, TURN_END} <= tokenizer.added_tokens_encoder.keys():
        raise CheckpointError(
            f"the tokenizer in {directory} lacks the ChatML tokens {TURN_START} and {TURN_END}"
        )
    return tokenizer


def build_empty(
    geometry: Geometry,
    tokenizer: PreTrainedTokenizerBase,
    weights: RenamedWeights,
    compressor: Compressor | None = None,
    attention: str = "sdpa",
) -> OneVision:
    """Build the model that a checkpoint's configuration describes, without memory for its weights.

    Raises:
        CheckpointError: there is no such model.
    """
    geometry.language.tie_word_embeddings = weights.is_head_tied
    try:
        with torch.device("meta"):
            model = OneVision(geometry, tokenizer, compressor, attention)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"config.json describes a model that cannot be built: {error}") from error
    return model


def compare_weights(model: OneVision, weights: RenamedWeights) -> dict[str, list[str]]:
    """List the weights that do not fit, under the keys unknown, missing, misshapen and quantised."""
    expected = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    known = {name: weight for name, weight in weights.by_name.items() if name in expected}
    return {
        "unknown": [weight.name for name, weight in weights.by_name.items() if name not in expected],
        "missing": [name for name in expected if name not in known and name != HEAD],
        "misshapen": [
            f"{weight.name} {weight.shape} for {expected[name]}"
            for name, weight in known.items()
            if weight.shape != expected[name]
        ],
        "quantised": [f"{w.name} {w.dtype}" for w in known.values() if w.dtype not in DTYPES],
    }


def check_vocabulary(model: OneVision) -> None:
    """Raise CheckpointError if the tokenizer has ids for which the model has no embedding."""
    num_ids, num_rows = model.num_token_ids, model.geometry.language.vocab_size
    if num_ids > num_rows:
        raise CheckpointError(f"the tokenizer has {num_ids} ids, the model only {num_rows} embeddings")


def _check(model: OneVision, weights: RenamedWeights) -> None:
    """Raise one CheckpointError that lists every weight that does not fit."""
    lines = [
        f"\n  {len(names)} {kind}: {', '.join(names[:NUM_LISTED])}{', ...' * (len(names) > NUM_LISTED)}"
        for kind, names in compare_weights(model, weights).items()
        if names
    ]
    if lines:
        raise CheckpointError(f"the weights are not those that config.json describes:{''.join(lines)}")
    check_vocabulary(model)


def _fill(
    model: OneVision,
    weights: RenamedWeights,
    device_map: DeviceMap,
    dtype: torch.dtype,
    quantiser: LinearQuantiser | None,
) -> None:
    """Give every parameter its stored values and compute the tables that no checkpoint stores."""
    ours_at: dict[int | str, dict[str, str]] = defaultdict(dict)  # device: {name as stored: our name}
    for name, weight in weights.by_name.items():
        ours_at[locate(name, device_map)][weight.name] = name
    on_disk = ours_at.pop(DISK, {})
    state = {name: model.get_parameter(name).to(dtype) for name in on_disk.values()}  # without memory
    for located, ours in ours_at.items():
        device = torch.device(located)
        for weight, stored in read_weights([weights.by_name[name] for name in ours.values()], device):
            name, tensor = ours[weight.name], stored.to(device, dtype)
            if quantiser is not None and quantiser.takes(name):
                quantiser.put(name, tensor)
            else:
                state[name] = tensor
    model.load_state_dict(state, strict=False, assign=True)
    compute_tables(model)
    if weights.is_head_tied:
        model.language_model.lm_head.weight = model.language_model.model.embed_tokens.weight
    is_empty = {
        name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta
    }
    assert is_empty == set(on_disk.values())


def compute_tables(model: OneVision) -> None:
    """Compute the tables that no checkpoint stores: float32 rotary frequencies, and the numbers of patches."""
    embeddings, language_model = model.vision_tower.embeddings, model.language_model.model
    rotary = language_model.rotary_emb
    language_model.rotary_emb = type(rotary)(config=rotary.config).to(model.device)
    positions = torch.arange(embeddings.num_positions, device=model.device)
    embeddings.position_ids = nn.Buffer(positions[None], persistent=False)
