"""Measure time and memory side by side: `python scripts/bench.py compressor --frames 32`.

The same command as `llava-scissor bench`, with the same options; see --help.
"""

from __future__ import annotations

from llava_scissor.cli import main_bench

if __name__ == "__main__":
    main_bench()
