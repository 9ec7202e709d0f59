"""Write docs/configuration.md from the schema of the settings: run this after a change of the schema."""

from __future__ import annotations

from pathlib import Path

from llava_scissor.config.reference import render_reference

REFERENCE_PATH = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"


def main() -> None:
    """Render the reference and write it."""
    REFERENCE_PATH.write_text(render_reference(), encoding="utf-8")
    print(f"wrote {REFERENCE_PATH}")


if __name__ == "__main__":
    main()
