"""Ask a question about a video: `python scripts/infer.py --video clip.mp4 --question "..."`.

The same command as `llava-scissor ask`, with the same options; see --help.
"""

from __future__ import annotations

from llava_scissor.cli import main_ask

if __name__ == "__main__":
    main_ask()
