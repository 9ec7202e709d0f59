"""Train the demo model: `python scripts/train_demo.py --run-dir runs/demo`. Stop and start it as you like."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def main() -> None:
    """Parse the options, train, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, default=Path("runs/demo"), help="where checkpoints are kept")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo/model"), help="checkpoint directory to write"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and every batch")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the steps of every stage")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw clips ahead")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    from llava_scissor.demo.export import export
    from llava_scissor.demo.training import RunSettings, train

    settings = RunSettings(
        seed=options.seed, scale=options.scale, device=options.device, num_workers=options.workers
    )
    export(train(options.run_dir, settings), options.out)


if __name__ == "__main__":
    main()
