"""How time and memory of the compressor grow with the number of frames."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llava_scissor.bench.features import moving_regions
from llava_scissor.bench.measuring import measure_peak, time_side_by_side
from llava_scissor.compression import compress
from llava_scissor.config import ScissorConfig
from llava_scissor.model.placement import describe_machine
from llava_scissor.results.store import ResultStore

ENOUGH_S = 5.0
"""A run that takes longer than this is not repeated."""


@dataclass(frozen=True)
class GrowthBench:
    """What is run at every number of frames.

    Attributes:
        tokens_per_frame: P, a square number.
        width: D, the width of the language model.
        dtype: name of the tokens' number format.
        device: where to run.
        tau: threshold.
        retention_ratio: budget; only the sampled search has to meet it.
        sample_size: of the sampled search.
        num_repeats: timed runs of each function, if they are short.
    """

    tokens_per_frame: int = 196
    width: int = 896
    dtype: str = "float32"
    device: str = "cpu"
    tau: float = 0.785
    retention_ratio: float = 0.1
    sample_size: int = 1024
    num_repeats: int = 5


def measure_all(num_frames: Sequence[int], bench: GrowthBench, folder: Path) -> list[dict[str, Any]]:
    """Measure some numbers of frames; each is stored as soon as it is done.

    Args:
        num_frames: which; those that are stored already are not measured again.
        bench: what is run.
        folder: of the results; made if it is not there.

    Returns:
        All stored rows, by number of frames.

    Raises:
        InputError: the folder holds results of other settings or of another machine.
    """
    settings = {**asdict(bench), "machine": describe_machine(torch.device(bench.device))}
    store = ResultStore(folder, settings, ["num_frames"])
    for number in sorted(n for n in set(num_frames) if (n,) not in store.done):
        store.append(bench_growth(number, bench))
    return sorted(store.rows, key=lambda row: row["num_frames"])


def bench_growth(num_frames: int, bench: GrowthBench) -> list[dict[str, Any]]:
    """Measure one number of frames.

    Returns:
        For the exact search, the sampled one and the sampled one with a budget: settings, machine, seconds of the
        fastest run, the same in milliseconds for each frame, peak of memory above the input, tokens kept. A run
        that takes long is the only one of its function; of the others, the first is not timed.
    """
    device = torch.device(bench.device)
    tokens = moving_regions(
        num_frames, bench.tokens_per_frame, bench.width, getattr(torch, bench.dtype), device
    )
    searches = {
        "exact, tau": ScissorConfig(tau=bench.tau),
        "sampled, tau": ScissorConfig(tau=bench.tau, sample_size=bench.sample_size),
        "sampled, budget": ScissorConfig(
            retention_ratio=bench.retention_ratio, sample_size=bench.sample_size
        ),
    }
    facts = {**asdict(bench), "machine": describe_machine(device), "num_frames": num_frames}
    return [{**facts, "name": name, **_measure(tokens, search, bench)} for name, search in searches.items()]


def _measure(tokens: Tensor, search: ScissorConfig, bench: GrowthBench) -> dict[str, Any]:
    kept: list[int] = []
    started_s = time.perf_counter()
    peak = measure_peak(lambda: kept.append(compress(tokens, search).num_kept), tokens.device)
    seconds = time.perf_counter() - started_s
    if seconds < ENOUGH_S:
        run = {"": partial(compress, tokens, search)}
        seconds = time_side_by_side(run, bench.num_repeats, tokens.device)[""].wall.min_s
    return {
        "seconds": seconds,
        "ms_per_frame": 1000 * seconds / len(tokens),
        "peak_bytes": peak,
        "kept": kept[0],
    }
