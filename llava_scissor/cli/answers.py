"""What `llava-scissor ask` prints: the answers, and what became of the video and its tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from llava_scissor._version import __version__
from llava_scissor.config import Config, to_dict

if TYPE_CHECKING:
    from llava_scissor.compression import CompressionResult
    from llava_scissor.generation import Answer

Timings = dict[str, float]


def as_json(
    answers: Sequence[Answer], opening_s: Timings, image_names: Sequence[str], config: Config
) -> dict[str, Any]:
    """Return one object for all answers: those of a single answer beside the rest, those of several in a list."""
    first = answers[0]
    if len(answers) == 1:
        shown = {"answer": first.text}
        counts = {"num_prompt_tokens": first.num_prompt_tokens, "num_new_tokens": first.num_new_tokens}
        timings_s = _sum([opening_s, first.timings_s])
    else:
        shown = {"answers": [_answer_as_json(answer) for answer in answers]}
        counts, timings_s = {}, opening_s
    taus = {name: getattr(first.compression, name, None) for name in ("tau", "tau_spatial")}
    return {
        **shown,
        "tokens": _count_tokens(first),
        **{name: tau if tau is not None and math.isfinite(tau) else None for name, tau in taus.items()},
        "timings_s": dict(timings_s),
        **counts,
        "video": _video_as_json(first),
        "images": [
            {"source": name, "height": height, "width": width}
            for name, (height, width) in zip(image_names, first.image_sizes, strict=True)
        ],
        "config": to_dict(config),
        "version": __version__,
    }


def print_question(question: str) -> None:
    """Show a question above its answer, where there are several."""
    _console().print(Text(question, style="dim"))


def print_text(answer: Answer) -> None:
    """Show an answer."""
    _console().print(Text(answer.text or "(the model wrote nothing)", style="bold"))


def print_summary(answers: Sequence[Answer], opening_s: Timings) -> None:
    """Show what was looked at, how many tokens were kept, and the seconds of each stage of all answers."""
    first = answers[0]
    rows: dict[str, str] = {}
    if first.clip is not None:
        missing = f", {first.clip.num_missing} could not be decoded" if first.clip.num_missing else ""
        rows["frames"] = f"{len(first.clip.indices)} of {first.clip.num_source_frames}{missing}"
    if first.image_sizes:
        name = "image" if len(first.image_sizes) == 1 else "images"
        rows[name] = ", ".join(f"{width} x {height}" for height, width in first.image_sizes)
    if first.compressions:
        counts = _count_tokens(first)
        shares = [f"{counts[k]:,} ({100 * counts[k] / counts['input']:.1f} %)" for k in ("spatial", "kept")]
        rows["tokens"] = " -> ".join([f"{counts['input']:,}", *shares])
    elif first.num_visual_tokens:
        rows["tokens"] = f"{first.num_visual_tokens:,}"
    if first.compression is not None:
        rows["tau"] = _taus(first.compression)
    num_new_tokens = sum(answer.num_new_tokens for answer in answers)
    for stage, seconds in _sum([opening_s, *(answer.timings_s for answer in answers)]).items():
        written = f"  {num_new_tokens} tokens" if stage == "generate" else ""
        rows[stage.replace("_", " ")] = f"{seconds:7.3f} s{written}"
    table = "\n".join(f"{name:<14}{value}" for name, value in rows.items())
    _console().print(Text(f"\n{table}"))


def _taus(result: CompressionResult) -> str:
    """Write the threshold, or both if the spatial step has its own."""
    if result.tau is None or result.tau_spatial is None:
        return "none"
    both = f"{result.tau_spatial:.4f} inside frames, {result.tau:.4f} across"
    return both if result.tau != result.tau_spatial else f"{result.tau:.4f}"


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _answer_as_json(answer: Answer) -> dict[str, Any]:
    return {
        "question": answer.history[-1].question,
        "answer": answer.text,
        "timings_s": dict(answer.timings_s),
        "num_prompt_tokens": answer.num_prompt_tokens,
        "num_cached_tokens": answer.num_cached_tokens,
        "num_new_tokens": answer.num_new_tokens,
    }


def _count_tokens(answer: Answer) -> dict[str, int]:
    if not answer.compressions:
        return dict.fromkeys(["input", "spatial", "kept"], answer.num_visual_tokens)
    return {
        name: sum(getattr(compression, f"num_{name}") for compression in answer.compressions)
        for name in ("input", "spatial", "kept")
    }


def _video_as_json(answer: Answer) -> dict[str, Any] | None:
    clip = answer.clip
    if clip is None:
        return None
    return {
        "source": clip.source,
        "indices": list(clip.indices),
        "timestamps_s": list(clip.timestamps_s),
        "num_source_frames": clip.num_source_frames,
        "num_missing": clip.num_missing,
        "fps": clip.fps,
    }


def _sum(timings_s: Sequence[Timings]) -> Timings:
    """Add up the seconds of each stage, the total last."""
    stages = dict.fromkeys(stage for timings in timings_s for stage in timings if stage != "total")
    return {name: sum(timings.get(name, 0.0) for timings in timings_s) for name in [*stages, "total"]}
