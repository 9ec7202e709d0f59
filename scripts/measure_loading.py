"""Measure how a checkpoint loads and answers: `python scripts/measure_loading.py --model directory`.

Prints seconds, and the largest resident memory of the process in each stage above what it had before loading.
Linux only: the figures come from /proc/self/status.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path


def main() -> None:
    """Parse the options, load, ask, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint directory")
    parser.add_argument("--dtype", default="auto", help="as for load_model")
    parser.add_argument("--quantization", choices=("8bit", "4bit"), help="as for load_model")
    parser.add_argument("--frames", type=int, default=2, help="frames of the clip to look at; 0: only load")
    options = parser.parse_args()
    from llava_scissor import ask, load_config, load_model
    from llava_scissor.demo.clips import demo_clips

    clip, config = demo_clips()[0], load_config(None, ["generation.max_new_tokens=4"])
    report: dict = {"model": options.model, "dtype": options.dtype, "quantization": options.quantization}
    before = reset_peak()
    started_s = time.perf_counter()
    model = load_model(options.model, device="cpu", dtype=options.dtype, quantization=options.quantization)
    report["load_s"] = round(time.perf_counter() - started_s, 2)
    report["load"] = memory_above(before)
    report["bytes_of_weights"] = sum(p.numel() * p.element_size() for p in model.parameters())
    if options.frames:
        video = config.video.model_copy(update={"num_frames": options.frames})
        answer = ask(model, clip.path, clip.questions[0].text, video, config.generation)
        report["answer"] = memory_above(before)
        report["timings_s"] = {stage: round(seconds, 2) for stage, seconds in answer.timings_s.items()}
        report["num_prompt_tokens"] = answer.num_prompt_tokens
        report["num_new_tokens"] = answer.num_new_tokens
    print(json.dumps(report))


def reset_peak() -> dict[str, int]:
    """Forget the peak of the resident memory, and return what there is now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return read_memory()


def memory_above(before: dict[str, int]) -> dict[str, int]:
    """Return peak and present megabytes above `before`; `mapped` is the part that is pages of the files."""
    now = read_memory()
    return {
        "peak_mb": (now["VmHWM"] - before["VmRSS"]) // 1000,
        "now_mb": (now["VmRSS"] - before["VmRSS"]) // 1000,
        "of_that_mapped_mb": (now["RssFile"] - before["RssFile"]) // 1000,
    }


def read_memory() -> dict[str, int]:
    """Return the kilobytes of /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = [line.split() for line in lines if line.startswith(("VmHWM", "VmRSS", "RssFile"))]
    return {name.rstrip(":"): int(value) * 1024 // 1000 for name, value, _ in fields}


if __name__ == "__main__":
    main()
