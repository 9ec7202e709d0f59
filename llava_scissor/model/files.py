"""The files of a checkpoint directory: JSON and safetensors, read without trusting them."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llava_scissor.errors import CheckpointError

INDEX_FILE, SINGLE_FILE = "model.safetensors.index.json", "model.safetensors"
# Without a directory in it. A link of that name may lead elsewhere, as in the hub's cache.
_SHARD_NAME = re.compile(r"[\w-][\w.-]*\.safetensors", re.ASCII)
_PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


@dataclass(frozen=True)
class StoredWeight:
    """One tensor as the header of its file describes it; `dtype` is a name such as BF16."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Size in the file."""
        bits = re.search(r"\d+", self.dtype)
        return math.prod(self.shape) * (int(bits[0]) if bits else 8) // 8  # BOOL has no number


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing, is not JSON, or holds something else than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {path.name}: is it a checkpoint directory?") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} should hold a JSON object, got a {type(content).__name__}")
    return content


def list_weights(directory: Path) -> dict[str, StoredWeight]:
    """List the tensors of a checkpoint by name, reading only the headers of its files.

    Raises:
        CheckpointError: no safetensors files, a damaged or missing one, or an index that disagrees with them.
    """
    weights, problems = scan_weights(directory)
    if problems:
        raise CheckpointError("\n".join(problems))
    return weights


def scan_weights(directory: Path) -> tuple[dict[str, StoredWeight], list[str]]:
    """List the tensors that can be read, and what is wrong with the rest; see `list_weights`."""
    weights: dict[str, StoredWeight] = {}
    problems = []
    try:
        indexed = _read_index(directory)
    except CheckpointError as error:
        return {}, [str(error)]
    unreadable = set()
    for file in sorted({directory / name for name in indexed.values()}) or [directory / SINGLE_FILE]:
        try:
            found = _read_header(file)
        except CheckpointError as error:
            problems.append(str(error))
            unreadable.add(file.name)
            continue
        problems += [
            f"{name} is stored twice, in {weights[name].file} and in {file}"
            for name in found.keys() & weights
        ]
        weights = found | weights
    file_of = {name: weight.file.name for name, weight in weights.items()}
    absent = [n for n, file in indexed.items() if file_of.get(n) != file and file not in unreadable]
    if absent and not problems:
        problems.append(
            f"{directory / INDEX_FILE} lists {len(absent)} weights that their files lack, such as {absent[0]}"
        )
    return weights, problems


def read_weights(
    weights: Iterable[StoredWeight], device: torch.device
) -> Iterator[tuple[StoredWeight, Tensor]]:
    """Yield tensors file by file, memory-mapped on a CPU and straight to the device on CUDA.

    Raises:
        CheckpointError: a file is damaged.
    """
    by_file = defaultdict(list)
    for weight in weights:
        by_file[weight.file].append(weight)
    for file, members in by_file.items():
        with _open(file, str(device) if device.type == "cuda" else "cpu") as tensors:
            for weight in members:
                yield weight, tensors.get_tensor(weight.name)


def _read_header(file: Path) -> dict[str, StoredWeight]:
    with _open(file) as tensors:
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - not iterable
        return {
            name: StoredWeight(name, file, tuple(header.get_shape()), header.get_dtype())
            for name, header in slices.items()
        }


def _read_index(directory: Path) -> dict[str, str]:
    """Return the file name of each weight; empty for a checkpoint of a single file."""
    if not (directory / INDEX_FILE).is_file():
        if not (directory / SINGLE_FILE).is_file():
            raise CheckpointError(_no_weights(directory))
        return {}
    weight_map = read_json(directory / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{directory / INDEX_FILE} has no weight_map")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not _SHARD_NAME.fullmatch(file):
            raise CheckpointError(
                f"{directory / INDEX_FILE} puts {name} into {file!r}: expected the name of a safetensors "
                "file in the same directory"
            )
    return weight_map


def _no_weights(directory: Path) -> str:
    pickles = sorted(file.name for file in directory.iterdir() if file.suffix in _PICKLE_SUFFIXES)
    if pickles:
        return (
            f"{directory} holds pickled weights ({pickles[0]}), which can run code when they are read: only "
            "safetensors are accepted, so convert the checkpoint first"
        )
    return f"{directory} has neither {SINGLE_FILE} nor {INDEX_FILE}"


@contextmanager
def _open(file: Path, device: str = "cpu") -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt", device=device) as tensors:
            yield tensors
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing, although the index lists it: download it again") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} is truncated or not a safetensors file: {error}") from error
