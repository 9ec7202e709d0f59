"""Measure the demo model on held-out clips by question type: `python scripts/eval_demo.py --clips 160`."""

from __future__ import annotations

import argparse
import json
import sys
import time

from llava_scissor.config import CompressionConfig


def main() -> None:
    """Parse the options, ask every question, print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo", help="checkpoint directory; the shipped model by default")
    parser.add_argument("--clips", type=int, default=160, help="number of held-out clips")
    parser.add_argument("--first-clip", type=int, default=0)
    parser.add_argument("--method", default="none", help="compressor, as in compression.method")
    parser.add_argument("--retention", type=float, help="compression.retention_ratio")
    parser.add_argument(
        "--video-files", action="store_true", help="encode each clip as H.264 and read it back"
    )
    options = parser.parse_args()
    config = CompressionConfig(method=options.method, retention_ratio=options.retention)

    from llava_scissor.compression import build_compressor
    from llava_scissor.demo.evaluation import accuracies, evaluate
    from llava_scissor.model import load_model

    started_s = time.perf_counter()
    evaluated = []
    model = load_model(options.model)
    for question in evaluate(
        model, build_compressor(config), options.clips, options.first_clip, options.video_files
    ):
        evaluated.append(question)
        if len(evaluated) % 100 == 0:
            sys.stderr.write(f"\r{len(evaluated)} questions, clip {question.clip - options.first_clip + 1}")
    sys.stderr.write("\n")
    scores = accuracies(evaluated)
    for kind, (accuracy, count) in scores.items():
        print(f"{kind:<12}{accuracy:7.3f}{count:7d}")
    print(
        json.dumps(
            {
                "accuracy": {kind: round(accuracy, 4) for kind, (accuracy, _) in scores.items()},
                "questions": {kind: count for kind, (_, count) in scores.items()},
                "clips": options.clips,
                "first_clip": options.first_clip,
                "compression": config.model_dump(),
                "retention": sum(e.num_kept for e in evaluated) / sum(e.num_input for e in evaluated),
                "video_files": options.video_files,
                "seconds": round(time.perf_counter() - started_s, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
