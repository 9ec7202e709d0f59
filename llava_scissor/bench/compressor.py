"""What the compressor alone costs, beside its matrix products and two plain versions of the method."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from llava_scissor.bench.features import GENERATORS, similarity_profile
from llava_scissor.bench.measuring import (
    clock_of,
    cpu_threads,
    measure_peak,
    time_side_by_side,
)
from llava_scissor.bench.plain_steps import (
    compress_frame_by_frame,
    label_by_scipy,
    label_by_union_find,
    matrix_products,
)
from llava_scissor.bench.recordings import Recording, read_recording
from llava_scissor.compression import CompressionResult, compress
from llava_scissor.compression.engines.tiled.similarity import directions
from llava_scissor.config import ScissorConfig
from llava_scissor.errors import InputError
from llava_scissor.model.placement import describe_machine

logger = logging.getLogger(__name__)

PRODUCTS, TAU, BUDGET = "matrix products", "scissor, tau", "scissor, budget"

CLOSE_ENOUGH = 0.01
"""A threshold is found once it keeps as many tokens as the budget, give or take this share."""

MAX_STEPS = 14
"""Steps of the search for a threshold; some numbers of tokens are kept at none."""


@dataclass(frozen=True)
class CompressorBench:
    """What is run on every set of tokens.

    Attributes:
        tokens_per_frame: P of drawn tokens, a square number.
        width: D of drawn tokens, the width of the language model.
        dtype: name of the tokens' number format.
        device: where to run.
        retention_ratios: shares of the tokens to keep.
        compression: all other settings; its threshold and ratio are not used.
        num_threads: of PyTorch on the CPU.
        num_repeats: timed runs of each function, after one that is not timed.
        float32_products: whether to multiply in float32 only, as on a CPU without instructions for bfloat16.
        use_plain: whether the plain versions run, too; they take seconds each.
    """

    tokens_per_frame: int = 196
    width: int = 896
    dtype: str = "float32"
    device: str = "cpu"
    retention_ratios: Sequence[float] = (0.5, 0.25, 0.1, 0.05, 0.02)
    compression: ScissorConfig = field(default_factory=ScissorConfig)
    num_threads: int = 1
    num_repeats: int = 7
    float32_products: bool = False
    use_plain: bool = False

    @property
    def clock(self) -> Literal["cpu", "wall"]:
        """Which seconds the ratios are of."""
        return clock_of(self.device, self.num_threads)

    def settings(self) -> dict[str, Any]:
        """Return what is the same for all rows, as plain values."""
        plain = asdict(self)
        del plain["tokens_per_frame"], plain["width"]  # each row has its own
        other = self.compression.model_dump(exclude_defaults=True, exclude={"tau", "retention_ratio"})
        ratios = list(self.retention_ratios)
        return {**plain, "retention_ratios": ratios, "compression": other, "clock": self.clock}


@dataclass(frozen=True)
class Drawn:
    """Tokens from one of the generators.

    Attributes:
        name: of the generator.
        tokens_per_frame: P.
        width: D.
    """

    name: str
    tokens_per_frame: int
    width: int

    def check(self, num_frames: int) -> None:
        """Accept any number of frames."""

    def take(self, num_frames: int) -> Float[Tensor, "n p d"]:
        """Draw tokens in float32."""
        draw = GENERATORS[self.name]
        return draw(num_frames, self.tokens_per_frame, self.width, torch.float32, torch.device("cpu"), 0)


def open_features(source: str, bench: CompressorBench) -> Drawn | Recording:
    """Find the tokens that a name stands for: of a generator, or a file of recorded tokens.

    Raises:
        InputError: it is neither, or the file cannot be used.
    """
    if source in GENERATORS:
        return Drawn(source, bench.tokens_per_frame, bench.width)
    if not Path(source).is_file():
        raise InputError(f"--features {source}: expected {', '.join(GENERATORS)} or a safetensors file")
    return read_recording(Path(source))


def describe(bench: CompressorBench) -> dict[str, Any]:
    """Return what figures depend on besides the code, with the threads that the bench uses."""
    with cpu_threads(bench.num_threads):
        return describe_machine(torch.device(bench.device))


def bench_compressor(
    bench: CompressorBench, features: Sequence[Drawn | Recording], num_frames: Sequence[int]
) -> Iterator[list[dict[str, Any]]]:
    """Measure the compressor at thresholds and at exact budgets that keep about as many tokens.

    Args:
        bench: what is run.
        features: where the tokens are from.
        num_frames: of each of them; none for 32, or as many as were recorded.

    Yields:
        For each features and number of frames the rows of all ratios. The products of a row are those of the
        tokens and representatives that the threshold leads to.

    Raises:
        InputError: there are not so many frames, or P is no square number.
    """
    plan = [(one, number) for one in features for number in num_frames or [_default_frames(one)]]
    for one, number in plan:
        one.check(number)
    device = torch.device(bench.device)
    with _without_bfloat16() if bench.float32_products else nullcontext(), cpu_threads(bench.num_threads):
        for one, number in plan:
            tokens = one.take(number).to(device, getattr(torch, bench.dtype))
            facts = {
                "features": one.name,
                **dict(zip(("num_frames", "tokens_per_frame", "width"), tokens.shape, strict=True)),
                "similarity": similarity_profile(tokens),
            }
            yield [{**facts, **row} for row in _rows(tokens, bench)]


def _default_frames(features: Drawn | Recording) -> int:
    return len(features.tokens) if isinstance(features, Recording) else 32


@contextmanager
def _without_bfloat16() -> Iterator[None]:
    """Make `precision.fast_dtype` take a CPU for one without instructions for bfloat16."""
    library = torch.backends.mkldnn
    before, library.enabled = library.enabled, False
    try:
        yield
    finally:
        library.enabled = before


def _rows(tokens: Float[Tensor, "f p d"], bench: CompressorBench) -> Iterator[dict[str, Any]]:
    counts: dict[float, int] = {}
    for ratio in bench.retention_ratios:
        logger.info("%s tokens, retention %g", " x ".join(map(str, tokens.shape)), ratio)
        budget = bench.compression.model_copy(update={"tau": None, "retention_ratio": ratio})
        at_budget = compress(tokens, budget)
        threshold = find_threshold(tokens, bench.compression, at_budget.num_kept, counts)
        at_tau = compress(tokens, threshold)
        functions = _functions(tokens, at_tau, threshold, budget, bench.use_plain)
        clocks = time_side_by_side(functions, bench.num_repeats, tokens.device)
        peaks = {n: measure_peak(functions[n], tokens.device) for n in (TAU, BUDGET)}
        fastest_s = {name: getattr(both, bench.clock).min_s for name, both in clocks.items()}
        yield {
            "retention_ratio": ratio,
            "tau": threshold.tau,
            "budget_taus": {"spatial": at_budget.tau_spatial, "temporal": at_budget.tau},
            "tokens": {
                "input": at_tau.num_input,
                "spatial": at_tau.num_spatial,
                "kept_at_tau": at_tau.num_kept,
                "kept_at_budget": at_budget.num_kept,
            },
            "tau_over_products": fastest_s[TAU] / fastest_s[PRODUCTS],
            "budget_over_tau": fastest_s[BUDGET] / fastest_s[TAU],
            "functions": {n: {**asdict(both), "peak_bytes": peaks.get(n)} for n, both in clocks.items()},
        }


def find_threshold(
    tokens: Float[Tensor, "f p d"], base: ScissorConfig, target: int, counts: dict[float, int]
) -> ScissorConfig:
    """Find the threshold that keeps about as many tokens as a budget, by bisection.

    The angle is halved, not its cosine: where all tokens are alike, thresholds differ in their last digits.

    Args:
        tokens: what is compressed.
        base: all other settings.
        target: number of tokens to keep.
        counts: how many each threshold that was tried has kept, of the same tokens; tried ones are added.

    Returns:
        The settings with the best threshold that was tried.
    """
    for _ in range(MAX_STEPS):
        if any(abs(count - target) <= CLOSE_ENOUGH * target for count in counts.values()):
            break
        low = max([tau for tau, count in counts.items() if count < target], default=-1.0)
        high = min([tau for tau, count in counts.items() if count >= target and tau > low], default=1.0)
        tau = math.cos((math.acos(low) + math.acos(high)) / 2)
        counts[tau] = compress(tokens, _at(tau, base)).num_kept
    return _at(min(counts, key=lambda tau: abs(counts[tau] - target)), base)


def _at(tau: float, base: ScissorConfig) -> ScissorConfig:
    return base.model_copy(update={"tau": tau, "retention_ratio": None})


def _functions(
    tokens: Float[Tensor, "f p d"],
    at_tau: CompressionResult,
    threshold: ScissorConfig,
    budget: ScissorConfig,
    use_plain: bool,
) -> dict[str, partial[Any]]:
    unit = directions(tokens).unit
    flat = unit.flatten(0, 1)
    functions: dict[str, partial[Any]] = {
        PRODUCTS: partial(matrix_products, unit, flat[: at_tau.num_spatial], flat[: at_tau.num_kept]),
        TAU: partial(compress, tokens, threshold),
        BUDGET: partial(compress, tokens, budget),
    }
    if use_plain:
        assert threshold.tau is not None
        for name, label in {"SciPy": label_by_scipy, "union-find": label_by_union_find}.items():
            functions[name] = partial(compress_frame_by_frame, tokens, threshold.tau, label)
    return functions
