from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "infer.py"


def infer(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, text=True, capture_output=True, check=False)


def test_the_options_are_those_of_ask() -> None:
    shown = infer("--help").stdout
    assert "Usage: llava-scissor ask" in shown
    assert "--question" in shown


def test_bad_settings_stop_it(tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("compression:\n  tau: 1.7\n")
    result = infer("--video", "clip.mp4", "--question", "What?", "--config", str(settings))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: compression.tau ({settings}, line 2): got 1.7, expected a number from -1 to 1, or null\n"
    )
