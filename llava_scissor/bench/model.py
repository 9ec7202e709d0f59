"""What an answer costs from the video file to its last token, with all visual tokens and with fewer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from llava_scissor.bench.measuring import measure_peak, summarize_times
from llava_scissor.compression import Compressor
from llava_scissor.config import GenerationConfig, VideoConfig
from llava_scissor.generation import Answer, ask
from llava_scissor.model import OneVision
from llava_scissor.model.placement import describe_machine
from llava_scissor.video import VideoClip

_QUESTION = "What is the background?"


@dataclass(frozen=True)
class ModelBench:
    """What is asked, and how often.

    Attributes:
        num_frames: frames to sample from the video.
        max_new_tokens: upper limit of an answer; a model that stops early writes fewer.
        num_repeats: timed runs of each compressor.
        num_warm_up: runs of each before that.
    """

    num_frames: int = 32
    max_new_tokens: int = 32
    num_repeats: int = 5
    num_warm_up: int = 1


def bench_model(
    model: OneVision, compressors: Mapping[str, Compressor], video: str | bytes | VideoClip, bench: ModelBench
) -> dict[str, Any]:
    """Ask the same question again and again, the compressors taking turns.

    Args:
        model: the model.
        compressors: what to compare, by name; ratios are to the first of them.
        video: what is asked about.
        bench: size and number of the runs.

    Returns:
        The machine and one row for each compressor: tokens, seconds of each stage (median and 95th
        percentile), seconds for each token after the first, total and its ratio, and peak memory.
    """
    answers: dict[str, list[Answer]] = {name: [] for name in compressors}
    peaks: dict[str, int | None] = {}
    for repeat in range(-bench.num_warm_up, bench.num_repeats):
        for name, compressor in compressors.items():
            answer = _ask(model, compressor, video, bench)
            if repeat >= 0:
                answers[name].append(answer)
    for name, compressor in compressors.items():
        peaks[name] = measure_peak(partial(_ask, model, compressor, video, bench), model.device)
    rows = [_row(name, runs, peaks[name]) for name, runs in answers.items()]
    for row in rows:
        row["total_ratio"] = row["stages"]["total"]["p50_s"] / rows[0]["stages"]["total"]["p50_s"]
    return {**asdict(bench), "machine": describe_machine(model.device), "rows": rows}


def _ask(
    model: OneVision, compressor: Compressor, video: str | bytes | VideoClip, bench: ModelBench
) -> Answer:
    generation = GenerationConfig(max_new_tokens=bench.max_new_tokens)
    frames = VideoConfig(num_frames=bench.num_frames)
    return ask(model, video, _QUESTION, frames, generation, compressor=compressor)


def _row(name: str, runs: list[Answer], peak_bytes: int | None) -> dict[str, Any]:
    first = runs[0]
    (compression,) = first.compressions
    per_token = [
        run.timings_s["generate"] / (run.num_new_tokens - 1) for run in runs if run.num_new_tokens > 1
    ]
    return {
        "name": name,
        "tokens": {"input": compression.num_input, "kept": compression.num_kept},
        "num_prompt_tokens": first.num_prompt_tokens,
        "num_new_tokens": first.num_new_tokens,
        "stages": {
            stage: asdict(summarize_times([run.timings_s[stage] for run in runs]))
            for stage in first.timings_s
        },
        "per_token": asdict(summarize_times(per_token)) if per_token else None,
        "peak_bytes": peak_bytes,
    }
