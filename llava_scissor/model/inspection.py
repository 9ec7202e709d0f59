"""What a checkpoint is and what of it would be loaded, from its JSON files and the headers of its weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any, TypeVar

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llava_scissor.errors import CheckpointError
from llava_scissor.model.checkpoint import (
    NUM_LISTED,
    build_empty,
    check_vocabulary,
    compare_weights,
    find_directory,
    read_tokenizer,
)
from llava_scissor.model.files import StoredWeight, scan_weights
from llava_scissor.model.geometry import Geometry
from llava_scissor.model.layouts import read_geometry
from llava_scissor.model.onevision import OneVision
from llava_scissor.model.quantisation import BYTES_PER_WEIGHT
from llava_scissor.model.weight_names import HEAD, RenamedWeights, describe_spelling, rename_weights

_LINEAR = re.compile(r"language_model\.model\.layers\..+_proj\.weight")
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_T = TypeVar("_T")


@dataclass
class CheckpointReport:
    """What a checkpoint is. A field is None or empty where broken files do not say it.

    Attributes:
        path: the directory.
        kind: what model it is; None if it cannot be loaded.
        layout: `original` or `huggingface`.
        spelling: which of the spellings of its layout the names of the weights follow.
        vision: sizes of the vision tower.
        language: sizes of the language model.
        video: visual tokens of a frame, stride of the pooling, default number of frames, and `one_token` or
            `flat`: whether a newline follows the tokens of a video.
        images: how an image is shown and put together, and its numbers of tiles; or why images cannot be asked
            about.
        tokenizer: from which files it is read, and its number of ids.
        generation: what generation_config.json says; answers are greedy unless sampling is asked for.
        is_head_tied: whether the embedding is the head.
        num_files: files of weights that can be read.
        num_bytes: size of the weights in these files.
        stored_dtypes: number of weights by number format, as the files name it.
        num_parameters: by part, and in all.
        memory_bytes: what the weights take when loaded, by number format; 8bit and 4bit are quantised linear
            layers of the language model, the rest in 16 bits.
        cache_bytes_per_token: key-value cache of one position in 16 bits.
        num_loaded: stored weights that would be loaded.
        ignored: names of stored weights that would not be.
        unknown: names of stored weights that no part of the model takes.
        missing: this model's names of weights that are not stored.
        misshapen: stored weights of another shape than config.json describes.
        quantised: stored weights in a number format that cannot be loaded.
        problems: why the checkpoint cannot be loaded; empty if it can be.
    """

    path: str
    kind: str | None = None
    layout: str | None = None
    spelling: str | None = None
    vision: dict[str, int] = field(default_factory=dict)
    language: dict[str, int] = field(default_factory=dict)
    video: dict[str, int | str] = field(default_factory=dict)
    images: dict[str, int | str | None] = field(default_factory=dict)
    tokenizer: dict[str, int | str] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    is_head_tied: bool | None = None
    num_files: int = 0
    num_bytes: int = 0
    stored_dtypes: dict[str, int] = field(default_factory=dict)
    num_parameters: dict[str, int] = field(default_factory=dict)
    memory_bytes: dict[str, int] = field(default_factory=dict)
    cache_bytes_per_token: int | None = None
    num_loaded: int = 0
    ignored: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    quantised: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def inspect_checkpoint(path: str | Path) -> CheckpointReport:
    """Describe a checkpoint without reading its weights, as far as its files can be read.

    Args:
        path: as for `load_model`.

    Returns:
        The report; its `problems` are those for which `load_model` would refuse the checkpoint.

    Raises:
        CheckpointError: there is no such directory, and no such checkpoint on the Hugging Face hub.

    Cost: the JSON files and a few hundred kilobytes of each file of weights.
    """
    directory = find_directory(path)
    report = CheckpointReport(str(directory))
    geometry = _attempt(report, read_geometry, directory)
    tokenizer = _attempt(report, read_tokenizer, directory)
    stored, problems = scan_weights(directory)
    report.problems += problems
    _describe_files(report, stored)
    if tokenizer is not None:
        is_one_file = (directory / "tokenizer.json").is_file()
        kind = "tokenizer.json" if is_one_file else "vocab.json and merges.txt"
        report.tokenizer = {"kind": kind, "num_ids": len(tokenizer)}
    if geometry is not None:
        _describe_geometry(report, geometry)
        weights = _attempt(report, rename_weights, stored, geometry)
        if weights is not None and stored:
            report.spelling = describe_spelling(stored, geometry.layout)
            report.is_head_tied = weights.is_head_tied
            _describe_weights(report, geometry, weights, tokenizer)
    return report


def _attempt(report: CheckpointReport, read: Callable[..., _T], *arguments: object) -> _T | None:
    try:
        return read(*arguments)
    except CheckpointError as error:
        report.problems.append(str(error))
        return None


def _describe_files(report: CheckpointReport, stored: dict[str, StoredWeight]) -> None:
    report.num_files = len({weight.file for weight in stored.values()})
    report.num_bytes = sum(weight.num_bytes for weight in stored.values())
    report.stored_dtypes = dict(Counter(weight.dtype for weight in stored.values()))


def _describe_geometry(report: CheckpointReport, geometry: Geometry) -> None:
    vision, language = geometry.vision, geometry.language
    report.kind, report.layout = "LLaVA-OneVision", geometry.layout
    report.vision = {
        "image_size_px": geometry.image_size,
        "patch_size_px": geometry.patch_size,
        "patches_per_side": geometry.patches_per_side,
        "num_blocks": vision.num_hidden_layers,
        "width": vision.hidden_size,
    }
    report.language = {
        "num_layers": language.num_hidden_layers,
        "width": language.hidden_size,
        "num_heads": language.num_attention_heads,
        "num_key_value_heads": geometry.num_key_value_heads,
        "vocabulary": language.vocab_size,
        "context_length": geometry.context_length,
    }
    report.video = {
        "newline": "one_token" if geometry.use_newline else "flat",
        "tokens_per_frame": geometry.tokens_per_frame,
        "pool_stride": geometry.pool_stride,
        "default_num_frames": geometry.default_num_frames,
    }
    report.images = _describe_images(geometry)
    report.generation = asdict(geometry.generation) | {"stop_ids": list(geometry.generation.stop_ids)}
    head_size = getattr(language, "head_dim", None) or language.hidden_size // language.num_attention_heads
    report.cache_bytes_per_token = (
        2 * 2 * language.num_hidden_layers * geometry.num_key_value_heads * head_size
    )


def _describe_images(geometry: Geometry) -> dict[str, int | str | None]:
    if geometry.image_problem:
        return {"problem": geometry.image_problem}
    described: dict[str, int | str | None] = {"views": geometry.image_views, "merge": geometry.image_merge}
    if geometry.image_views == "anyres":
        described |= {"num_grids": len(geometry.image_grids), "max_tiles": geometry.max_tiles}
    return described


def _describe_weights(
    report: CheckpointReport,
    geometry: Geometry,
    weights: RenamedWeights,
    tokenizer: PreTrainedTokenizerBase | None,
) -> None:
    blank = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel()))
    model = _attempt(report, build_empty, geometry, tokenizer or blank, weights)
    if model is None:
        return
    misfits = compare_weights(model, weights)
    report.unknown, report.missing = misfits["unknown"], misfits["missing"]
    report.misshapen, report.quantised = misfits["misshapen"], misfits["quantised"]
    report.problems += [f"{len(names)} weights are {kind}" for kind, names in misfits.items() if names]
    report.ignored = list(weights.ignored)
    report.num_loaded = len(weights.by_name) - len(report.unknown)
    _attempt(report, check_vocabulary, model)
    _count_parameters(report, model, weights.is_head_tied)


def _count_parameters(report: CheckpointReport, model: OneVision, is_head_tied: bool) -> None:
    sizes = {
        name: prod(parameter.shape)
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not (is_head_tied and name == HEAD)
    }
    parts: Counter[str] = Counter()
    for name, size in sizes.items():
        parts[name.partition(".")[0]] += size
    total = sum(sizes.values())
    linear = sum(size for name, size in sizes.items() if _LINEAR.fullmatch(name))
    report.num_parameters = {**parts, "total": total}
    report.memory_bytes = {dtype: total * num_bytes for dtype, num_bytes in _BYTES.items()}
    for quantization, num_bytes in BYTES_PER_WEIGHT.items():
        report.memory_bytes[quantization] = int((total - linear) * 2 + linear * num_bytes)


def as_rows(report: CheckpointReport) -> list[tuple[str, str]]:
    """Return the report for people: what is described, and the description."""
    rows = {
        "checkpoint": report.path,
        "kind": f"{report.kind}, {report.layout} layout" if report.kind else None,
    }
    rows["names"] = report.spelling
    for name in ("vision", "language", "video", "images", "tokenizer", "generation"):
        rows[name] = ", ".join(f"{key} {value}" for key, value in getattr(report, name).items())
    if report.is_head_tied is not None:
        rows["head"] = "the embedding" if report.is_head_tied else "its own weights"
    dtypes = ", ".join(f"{count} in {dtype}" for dtype, count in report.stored_dtypes.items())
    rows["files"] = f"{report.num_files} with {report.num_bytes / 1e9:.3f} GB" + f": {dtypes}" * bool(dtypes)
    for part, number in report.num_parameters.items():
        rows[f"parameters, {part}"] = f"{number:,}"
    rows["memory"] = ", ".join(f"{k} {v / 1e9:.3f} GB" for k, v in report.memory_bytes.items())
    if report.cache_bytes_per_token is not None:
        rows["key-value cache"] = f"{report.cache_bytes_per_token:,} bytes a token in 16 bits"
    rows["loaded"] = f"{report.num_loaded} weights"
    for kind in ("ignored", "unknown", "missing", "misshapen", "quantised"):
        names = getattr(report, kind)
        rows[kind] = ", ".join(names[:NUM_LISTED]) + f" and {len(names) - NUM_LISTED} more" * (
            len(names) > NUM_LISTED
        )
    rows["problems"] = "\n".join(report.problems) or "none"
    return [(name, text) for name, text in rows.items() if text]
