"""How time and memory of the compressor grow with the number of frames."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llava_scissor.bench.features import video_like_tokens
from llava_scissor.bench.measuring import describe_machine, measure_peak, time_side_by_side
from llava_scissor.compression import compress
from llava_scissor.config import ScissorConfig

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


def measure_all(num_frames: Sequence[int], bench: GrowthBench, path: Path) -> list[dict[str, Any]]:
    """Measure some numbers of frames, each written to a file of JSON lines as soon as it is done.

    Args:
        num_frames: which; those that the file has already, with the same settings, are not measured again.
        bench: what is run.
        path: of the file; made if it is not there.

    Returns:
        All rows with these settings, by number of frames.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    settings = asdict(bench)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row for row in lines if row.items() >= settings.items()]
    for number in sorted(set(num_frames) - {row["num_frames"] for row in rows}):
        found = bench_growth(number, bench)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
        rows += found
    return sorted(rows, key=lambda row: row["num_frames"])


def bench_growth(num_frames: int, bench: GrowthBench) -> list[dict[str, Any]]:
    """Measure one number of frames.

    Returns:
        For the exact search, the sampled one and the sampled one with a budget: settings, machine, seconds of the
        fastest run, the same in milliseconds for each frame, peak of memory above the input, tokens kept. A run
        that takes long is the only one of its function; of the others, the first is not timed.
    """
    device = torch.device(bench.device)
    tokens = video_like_tokens(
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
        seconds = time_side_by_side(run, bench.num_repeats, 0, tokens.device)[""].min_s
    return {
        "seconds": seconds,
        "ms_per_frame": 1000 * seconds / len(tokens),
        "peak_bytes": peak,
        "kept": kept[0],
    }
