"""Measure time and memory side by side: the same as `llava-scissor bench`, with the same options; see --help."""

from __future__ import annotations

import sys

from llava_scissor.cli.app import main

if __name__ == "__main__":
    main(["bench", *sys.argv[1:]])
