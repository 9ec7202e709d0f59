"""Render clips with their questions: `python scripts/make_demo_clips.py --out clips --seeds 1,2 1,3`."""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """Parse the options and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory for the clips and clips.json")
    parser.add_argument(
        "--seeds", nargs="+", required=True, help="one for each clip: integers joined by commas"
    )
    options = parser.parse_args()
    from llava_scissor.demo.clips import write_demo_clips

    write_demo_clips(options.out, [tuple(int(part) for part in seed.split(",")) for seed in options.seeds])


if __name__ == "__main__":
    main()
