"""Where a model runs and in which number format; layers of a large one on several devices."""

from __future__ import annotations

import importlib.util
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import get_balanced_memory, get_max_memory

from llava_scissor.errors import InputError, MissingDependencyError
from llava_scissor.model.files import StoredWeight
from llava_scissor.model.onevision import OneVision
from llava_scissor.model.weight_names import EMBEDDING

MaxMemory = Mapping[int | str, int | str]
DeviceMap = dict[str, int | str]  # name of a part to where it is: a GPU's number, "cpu" or "disk"

DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
DISK = "disk"
_SHARE_OF_GPU = 0.9  # for weights; the rest is for activations and the key-value cache
_WHOLE = ["SiglipVisionModel", "Projector", "Qwen2DecoderLayer"]  # parts that stay on one device
_LANGUAGE_MODEL = "language_model."


def is_installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what a figure depends on besides the code."""
    is_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_gpu else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def choose_device(device: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA if there is a GPU, else the CPU.

    Raises:
        InputError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch without CUDA
        raise InputError(f"device {device!r} cannot be used here: {error}") from error
    return chosen


def choose_dtype(dtype: str, weights: Mapping[str, StoredWeight], device: torch.device) -> torch.dtype:
    """Return the dtype of that name; `auto` is the stored one, but float32 for float16 on a CPU.

    Raises:
        InputError: no such dtype.
    """
    if dtype != "auto":
        if dtype not in ("float32", "bfloat16", "float16"):
            raise InputError(f"dtype {dtype!r}: expected auto, float32, bfloat16 or float16")
        return getattr(torch, dtype)
    stored = DTYPES.get(weights[EMBEDDING].dtype) if EMBEDDING in weights else None
    lacks_kernels = stored == torch.float16 and device.type == "cpu"
    return torch.float32 if stored is None or lacks_kernels else stored


def choose_attention(requested: str, device: torch.device, dtype: torch.dtype) -> str:
    """Return the attention of that name; `auto` is flash_attention_2 where it can be used, else sdpa.

    Raises:
        InputError: no such attention, or flash_attention_2 where it cannot run.
        MissingDependencyError: flash_attention_2 is not installed.
    """
    is_usable = device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    has_flash = is_installed("flash_attn")
    if requested == "auto":
        return "flash_attention_2" if is_usable and has_flash else "sdpa"
    if requested not in ("sdpa", "eager", "flash_attention_2"):
        raise InputError(f"attention {requested!r}: expected auto, sdpa, eager or flash_attention_2")
    if requested == "flash_attention_2" and not has_flash:
        raise MissingDependencyError(
            "flash_attention_2 needs a package that is not installed: pip install 'llava-scissor[flash]'"
        )
    if requested == "flash_attention_2" and not is_usable:
        raise InputError(f"flash_attention_2 needs CUDA and 16-bit weights, got {device}, {dtype}: use sdpa")
    return requested


def plan_device_map(model: OneVision, dtype: torch.dtype, max_memory: MaxMemory | None) -> DeviceMap:
    """Spread a model over the devices: GPUs first, then the CPU, then the checkpoint's own files.

    The vision tower, the projector and the newline come first and stay together, so that visual tokens are
    made and compressed on one device. The parts of the language model follow in their order; its embedding
    stays in memory.

    Args:
        model: the model. Its weights need not be loaded.
        dtype: number format in which the weights will be.
        max_memory: bytes, or text such as "20GiB", that weights may take, by GPU number and "cpu"; None for
            90 % of what is free on each GPU, evenly, and all of the CPU's.

    Returns:
        Where each part goes.

    Raises:
        InputError: a device that is not known, or too little memory for what stays together.
    """
    sizes = {"no_split_module_classes": _WHOLE, "dtype": dtype}
    try:
        limits = get_max_memory(None if max_memory is None else dict(max_memory))
    except ValueError as error:
        raise InputError(f"max_memory {dict(max_memory or {})}: {error}") from error
    if max_memory is None:
        limits = {name: int(_SHARE_OF_GPU * free) if name != "cpu" else free for name, free in limits.items()}
        limits = get_balanced_memory(model, limits, **sizes)
    device_map = cast(DeviceMap, infer_auto_device_map(model, limits, clean_result=False, **sizes))
    first = [name for name, _ in model.named_parameters() if not name.startswith(_LANGUAGE_MODEL)]
    main, *others = {locate(name, device_map) for name in first}
    needs_more = others or main == DISK or locate(EMBEDDING, device_map) in {DISK, "cpu"} - {main}
    if needs_more:
        num_bytes = sum(model.get_parameter(name).numel() for name in [*first, EMBEDDING]) * dtype.itemsize
        raise InputError(
            f"no device has room for the vision tower, the projector and the embedding ({num_bytes:,} bytes) "
            f"beside the largest part that may have to come and go: allow more with max_memory, got {limits}"
        )
    return device_map


def locate(name: str, device_map: DeviceMap) -> int | str:
    """Return where a parameter is, by the longest name in the map that it begins with."""
    parts = [part for part in device_map if not part or name == part or name.startswith(f"{part}.")]
    return device_map[max(parts, key=len)]


def spread(
    model: OneVision, device_map: DeviceMap, weights: Mapping[str, StoredWeight], dtype: torch.dtype
) -> None:
    """Let accelerate bring activations to the layers, and layers in memory or on disk to the device.

    Args:
        model: the model, its weights where the map says. Those on disk have no memory yet.
        device_map: where each part is.
        weights: the stored weights by this model's names; those on disk are read whenever they are needed.
        dtype: number format in which these are used.
    """
    if len(set(device_map.values())) == 1:
        return
    inner: dict[str, int | str | torch.device] = {
        name.removeprefix(_LANGUAGE_MODEL).removeprefix("language_model"): device
        for name, device in device_map.items()
        if name.startswith("language_model")
    }
    index: dict[str, Any] = {
        name.removeprefix(_LANGUAGE_MODEL): {
            "safetensors_file": str(weight.file),
            "weight_name": weight.name,
            "dtype": str(dtype).removeprefix("torch."),
        }
        for name, weight in weights.items()
        if locate(name, device_map) == DISK
    }
    main: Any = locate("projector", device_map)
    dispatch_model(model.language_model, inner, main, offload_index=index or None, force_hooks=True)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    return found[1].strip() if found else platform.processor() or platform.machine()
