"""How time and memory of the compressor grow with the number of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from llava_scissor.bench.features import moving_regions
from llava_scissor.bench.measuring import (
    ENOUGH_S,
    clock_of,
    cpu_threads,
    measure_peak,
    time_once,
    time_side_by_side,
)
from llava_scissor.compression import compress
from llava_scissor.config import ScissorConfig
from llava_scissor.model.placement import describe_machine
from llava_scissor.results.store import ResultStore


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
        compression: all other settings; its threshold, ratio and sample are not used.
        num_threads: of PyTorch on the CPU.
        num_repeats: timed runs of each function, if they are short.
    """

    tokens_per_frame: int = 196
    width: int = 896
    dtype: str = "float32"
    device: str = "cpu"
    tau: float = 0.785
    retention_ratio: float = 0.1
    sample_size: int = 1024
    compression: ScissorConfig = field(default_factory=ScissorConfig)
    num_threads: int = 1
    num_repeats: int = 5

    @property
    def clock(self) -> Literal["cpu", "wall"]:
        """Which seconds are stored."""
        return clock_of(self.device, self.num_threads)

    def settings(self) -> dict[str, Any]:
        """Return what is the same for all rows, and the machine, as plain values."""
        unused = {"tau", "retention_ratio", "sample_size", "epsilon"}
        other = self.compression.model_dump(exclude_defaults=True, exclude=unused)
        with cpu_threads(self.num_threads):
            machine = describe_machine(torch.device(self.device))
        return {**asdict(self), "compression": other, "clock": self.clock, "machine": machine}

    def searches(self) -> dict[str, ScissorConfig]:
        """Return the settings that are compared, by name."""
        ways = {
            "exact, tau": {"tau": self.tau, "sample_size": None},
            "sampled, tau": {"tau": self.tau, "sample_size": self.sample_size},
            "sampled, budget": {"retention_ratio": self.retention_ratio, "sample_size": self.sample_size},
        }
        none = {"tau": None, "retention_ratio": None, "epsilon": None}
        return {name: self.compression.model_copy(update=none | way) for name, way in ways.items()}


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
    store = ResultStore(folder, bench.settings(), ["num_frames"])
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
    facts = {**bench.settings(), "num_frames": num_frames}
    with cpu_threads(bench.num_threads):
        return [
            {**facts, "name": name, **_measure(tokens, search, bench)}
            for name, search in bench.searches().items()
        ]


def _measure(tokens: Tensor, search: ScissorConfig, bench: GrowthBench) -> dict[str, Any]:
    kept: list[int] = []
    peaks: list[int | None] = []

    def run() -> None:
        kept.append(compress(tokens, search).num_kept)

    wall_s, cpu_s = time_once(lambda: peaks.append(measure_peak(run, tokens.device)), tokens.device)
    seconds = cpu_s if bench.clock == "cpu" else wall_s
    if wall_s < ENOUGH_S:
        clocks = time_side_by_side({"": run}, bench.num_repeats, tokens.device)[""]
        seconds = getattr(clocks, bench.clock).min_s
    return {
        "seconds": seconds,
        "ms_per_frame": 1000 * seconds / len(tokens),
        "peak_bytes": peaks[0],
        "kept": kept[0],
    }
