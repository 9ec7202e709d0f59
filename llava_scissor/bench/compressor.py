"""What the compressor alone costs, beside its matrix products and two plain versions of the method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from llava_scissor.bench.features import video_like_tokens
from llava_scissor.bench.measuring import describe_machine, measure_peak, time_side_by_side
from llava_scissor.bench.plain_steps import (
    compress_frame_by_frame,
    label_by_scipy,
    label_by_union_find,
    matrix_products,
)
from llava_scissor.compression import compress
from llava_scissor.compression.similarity import directions
from llava_scissor.config import ScissorConfig

FLOOR = "matrix products"


@dataclass(frozen=True)
class CompressorBench:
    """Size and number of the runs.

    Attributes:
        num_frames: F.
        tokens_per_frame: P, a square number.
        width: D, the width of the language model.
        dtype: name of the tokens' number format.
        device: where to run.
        retention_ratio: share of the tokens to keep.
        sample_size: of the approximate search; None for the exact one.
        num_repeats: timed runs of each function, after one that is not timed.
        float32_products: whether to multiply in float32 only, as on a CPU without instructions for bfloat16.
        use_plain: whether the plain versions run, too; they take seconds each.
    """

    num_frames: int = 32
    tokens_per_frame: int = 196
    width: int = 896
    dtype: str = "float32"
    device: str = "cpu"
    retention_ratio: float = 0.1
    sample_size: int | None = None
    num_repeats: int = 7
    float32_products: bool = False
    use_plain: bool = False


def bench_compressor(bench: CompressorBench) -> dict[str, Any]:
    """Measure the compressor at a threshold and at an exact budget that keep about as many tokens.

    Returns:
        The settings, the machine, and one row for each function: its times, the ratio of the fastest to that
        of the float32 matrix products, and the tokens that it kept. The products are those of the tokens and
        representatives that the threshold leads to.
    """
    with _without_bfloat16() if bench.float32_products else nullcontext():
        return _bench_compressor(bench)


@contextmanager
def _without_bfloat16() -> Iterator[None]:
    """Make `precision.fast_dtype` take a CPU for one without instructions for bfloat16."""
    library = torch.backends.mkldnn
    before, library.enabled = library.enabled, False
    try:
        yield
    finally:
        library.enabled = before


def _bench_compressor(bench: CompressorBench) -> dict[str, Any]:
    device = torch.device(bench.device)
    dtype = getattr(torch, bench.dtype)
    tokens = video_like_tokens(bench.num_frames, bench.tokens_per_frame, bench.width, dtype, device)
    exact = ScissorConfig(retention_ratio=bench.retention_ratio, sample_size=bench.sample_size)
    at_budget = compress(tokens, exact)
    assert at_budget.tau is not None
    fixed = ScissorConfig(tau=at_budget.tau, sample_size=bench.sample_size)
    at_tau = compress(tokens, fixed)

    unit = directions(tokens).unit
    flat = unit.flatten(0, 1)
    functions = {
        FLOOR: partial(matrix_products, unit, flat[: at_tau.num_spatial], flat[: at_tau.num_kept]),
        "scissor, tau": partial(compress, tokens, fixed),
        "scissor, budget": partial(compress, tokens, exact),
    }
    kept = {FLOOR: None, "scissor, tau": at_tau.num_kept, "scissor, budget": at_budget.num_kept}
    if bench.use_plain:
        for name, label in {"SciPy": label_by_scipy, "union-find": label_by_union_find}.items():
            functions[name] = partial(compress_frame_by_frame, tokens, at_budget.tau, label)
            kept[name] = len(functions[name]())
    timings = time_side_by_side(functions, bench.num_repeats, 1, device)
    floor_s = timings[FLOOR].min_s
    return {
        **asdict(bench),
        "machine": describe_machine(device),
        "tau": at_budget.tau,
        "tokens": {"input": at_tau.num_input, "spatial": at_tau.num_spatial},
        "peak_bytes": {
            name: measure_peak(functions[name], device) for name in ("scissor, tau", "scissor, budget")
        },
        "rows": [
            {"name": name, **asdict(timing), "ratio": timing.min_s / floor_s, "kept": kept[name]}
            for name, timing in timings.items()
        ],
    }
