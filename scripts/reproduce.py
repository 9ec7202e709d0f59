"""Print a table of the paper, or run it: `llava-scissor reproduce`, with the same options; see --help."""

from __future__ import annotations

import sys

from llava_scissor.cli.app import main

if __name__ == "__main__":
    main(["reproduce", *sys.argv[1:]])
