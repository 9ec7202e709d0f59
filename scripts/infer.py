"""Ask a question about a video: the same as `llava-scissor ask`, with the same options; see --help."""

from __future__ import annotations

import sys

from llava_scissor.cli.app import main

if __name__ == "__main__":
    main(["ask", *sys.argv[1:]])
