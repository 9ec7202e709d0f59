"""From a checkpoint directory to a model; the only file that knows how checkpoints name their weights."""

from __future__ import annotations

import importlib.util
import re
from importlib.resources import files
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError  # of the HTTP library that it uses, which depends on its version
from torch import nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from llava_scissor.compression import Compressor
from llava_scissor.errors import CheckpointError, InputError, MissingDependencyError
from llava_scissor.model.files import StoredWeight, list_weights, read_weights
from llava_scissor.model.geometry import Geometry
from llava_scissor.model.layouts import read_geometry
from llava_scissor.model.onevision import OneVision
from llava_scissor.model.prompt import TURN_END, TURN_START

DEMO = "demo"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ["*.json", "*.safetensors", "merges.txt"]
_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
_NUM_LISTED = 8  # weights that a message names of each kind of problem
_EMBEDDING, _HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"

# The first rule that matches renames a stored weight. Hugging Face files of different years differ by an
# optional leading "model." and by optional inner levels.
_NAMES = {
    "original": (
        (r"model\.vision_tower\.vision_tower\.(?:vision_model\.)?(.+)", r"vision_tower.\1"),
        (r"model\.mm_projector\.(.+)", r"projector.\1"),
        (r"model\.image_newline", "image_newline"),
        (r"lm_head\.(.+)", r"language_model.lm_head.\1"),
        (r"model\.(.+)", r"language_model.model.\1"),
    ),
    "huggingface": (
        (r"(?:model\.)?vision_tower\.(?:vision_model\.)?(.+)", r"vision_tower.\1"),
        (r"(?:model\.)?multi_modal_projector\.linear_1\.(.+)", r"projector.0.\1"),
        (r"(?:model\.)?multi_modal_projector\.linear_2\.(.+)", r"projector.2.\1"),
        (r"(?:model\.)?image_newline", "image_newline"),
        (r"(?:language_model\.)?lm_head\.(.+)", r"language_model.lm_head.\1"),
        (r"(?:model\.)?language_model\.(?:model\.)?(.+)", r"language_model.model.\1"),
    ),
}
# The same for writing the original layout.
_ORIGINAL_PREFIXES = {
    "vision_tower.": "model.vision_tower.vision_tower.vision_model.",
    "projector.": "model.mm_projector.",
    "image_newline": "model.image_newline",
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": "model.",
}
# Stored by some checkpoints and used by none: tables that are computed, what SigLIP has besides its blocks.
_UNUSED = re.compile(
    r"(.+\.)?(inv_freq|position_ids)|vision_tower\.(head|post_layernorm)\..+|(.+\.)?text_model\..+"
)


def load_model(
    path: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    attn_implementation: str = "auto",
    compressor: Compressor | None = None,
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

    Returns:
        The model in evaluation mode, without gradients. Its rotary table is in float32 whatever the dtype.

    Raises:
        CheckpointError: the checkpoint is incomplete, damaged or of a kind that is not supported.
        InputError: a device, dtype or attention that does not exist here.
        MissingDependencyError: flash_attention_2 was asked for and is not installed.

    Cost: one pass over the files, memory-mapped on a CPU; what is cast is copied.
    """
    directory = _find_directory(path)
    geometry = read_geometry(directory)
    tokenizer = _read_tokenizer(directory)
    weights = _rename(list_weights(directory), geometry)
    target = _choose_device(device)
    weight_dtype = _choose_dtype(dtype, weights, target)
    attention = _choose_attention(attn_implementation, target, weight_dtype)
    # An absent head means the embedding is the head, whatever the config says.
    geometry.language.tie_word_embeddings = _HEAD not in weights
    model = _build_empty(geometry, tokenizer, compressor, attention)
    _check(model, weights)
    _fill(model, weights, target, weight_dtype)
    return model.requires_grad_(False).eval()


def original_name(name: str) -> str:
    """Return how the original layout stores one of our weights; `load_model` renames it back."""
    for ours, stored in _ORIGINAL_PREFIXES.items():
        if name.startswith(ours):
            return stored + name.removeprefix(ours)
    raise KeyError(name)


def _find_directory(path: str | Path) -> Path:
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


def _read_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Read tokenizer.json as it is; older checkpoints of Qwen2 have its vocabulary and merges instead."""
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


def _rename(stored: dict[str, StoredWeight], geometry: Geometry) -> dict[str, StoredWeight]:
    """Return the stored weights under this model's names, without those that are never used."""
    blocks = geometry.vision.num_hidden_layers
    unused = [f"vision_tower.encoder.layers.{blocks + i}." for i in range(geometry.num_unused_blocks)]
    unused += [] if geometry.use_newline else ["image_newline"]
    weights: dict[str, StoredWeight] = {}
    for name, weight in stored.items():
        ours = _our_name(name, geometry.layout)
        if _UNUSED.fullmatch(ours) or ours.startswith(tuple(unused)):
            continue
        if ours in weights:
            raise CheckpointError(f"{name} and {weights[ours].name} both stand for {ours}: remove one")
        weights[ours] = weight
    return weights


def _our_name(name: str, layout: str) -> str:
    for pattern, replacement in _NAMES[layout]:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    return f"unknown.{name}"  # a name that happens to be one of ours is no part of the layout either


def _choose_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch without CUDA
        raise InputError(f"device {device!r} cannot be used here: {error}") from error
    return chosen


def _choose_dtype(dtype: str, weights: dict[str, StoredWeight], device: torch.device) -> torch.dtype:
    if dtype != "auto":
        if dtype not in ("float32", "bfloat16", "float16"):
            raise InputError(f"dtype {dtype!r}: expected auto, float32, bfloat16 or float16")
        return getattr(torch, dtype)
    stored = _DTYPES.get(weights[_EMBEDDING].dtype) if _EMBEDDING in weights else None
    lacks_kernels = stored == torch.float16 and device.type == "cpu"
    return torch.float32 if stored is None or lacks_kernels else stored


def _choose_attention(requested: str, device: torch.device, dtype: torch.dtype) -> str:
    is_usable = device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    is_installed = _is_installed("flash_attn")
    if requested == "auto":
        return "flash_attention_2" if is_usable and is_installed else "sdpa"
    if requested not in ("sdpa", "eager", "flash_attention_2"):
        raise InputError(f"attention {requested!r}: expected auto, sdpa, eager or flash_attention_2")
    if requested == "flash_attention_2" and not is_installed:
        raise MissingDependencyError(
            "flash_attention_2 needs a package that is not installed: pip install 'llava-scissor[flash]'"
        )
    if requested == "flash_attention_2" and not is_usable:
        raise InputError(f"flash_attention_2 needs CUDA and 16-bit weights, got {device}, {dtype}: use sdpa")
    return requested


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _build_empty(
    geometry: Geometry, tokenizer: PreTrainedTokenizerBase, compressor: Compressor | None, attention: str
) -> OneVision:
    """Build the model without memory for its weights."""
    try:
        with torch.device("meta"):
            return OneVision(geometry, tokenizer, compressor, attention)
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"config.json describes a model that cannot be built: {error}") from error


def _check(model: OneVision, weights: dict[str, StoredWeight]) -> None:
    """Raise one CheckpointError that lists every weight that is unknown, missing, misshapen or quantised."""
    expected = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    known = {name: weight for name, weight in weights.items() if name in expected}
    problems = {
        "unknown": [weight.name for name, weight in weights.items() if name not in expected],
        "missing": [name for name in expected if name not in known and name != _HEAD],
        "misshapen": [
            f"{weight.name} {weight.shape} for {expected[name]}"
            for name, weight in known.items()
            if weight.shape != expected[name]
        ],
        "quantised": [f"{w.name} {w.dtype}" for w in known.values() if w.dtype not in _DTYPES],
    }
    lines = [
        f"\n  {len(names)} {kind}: {', '.join(names[:_NUM_LISTED])}{', ...' * (len(names) > _NUM_LISTED)}"
        for kind, names in problems.items()
        if names
    ]
    if lines:
        raise CheckpointError(f"the weights are not those that config.json describes:{''.join(lines)}")
    num_ids, num_rows = model.num_token_ids, model.geometry.language.vocab_size
    if num_ids > num_rows:
        raise CheckpointError(f"the tokenizer has {num_ids} ids, the model only {num_rows} embeddings")


def _fill(
    model: OneVision, weights: dict[str, StoredWeight], device: torch.device, dtype: torch.dtype
) -> None:
    """Give every parameter its stored values and compute the tables that no checkpoint stores."""
    ours = {weight.name: name for name, weight in weights.items()}
    state = {ours[w.name]: tensor.to(device, dtype) for w, tensor in read_weights(weights.values(), device)}
    model.load_state_dict(state, strict=False, assign=True)
    language_model, embeddings = model.language_model, model.vision_tower.embeddings
    if _HEAD not in weights:
        language_model.lm_head.weight = language_model.get_input_embeddings().weight
    rotary = language_model.model.rotary_emb
    language_model.model.rotary_emb = type(rotary)(config=rotary.config).to(device)
    positions = torch.arange(embeddings.num_positions, device=device)
    embeddings.position_ids = nn.Buffer(positions[None], persistent=False)
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
