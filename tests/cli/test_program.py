"""The command as a program of its own: imports, streams and exit codes of a real process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def run(code: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, text=True, capture_output=True, check=False, **options)


def test_bad_settings_are_refused_without_importing_torch(video: str) -> None:
    code = """
import sys
from llava_scissor.cli.app import main
try:
    main()
finally:
    print({"torch", "transformers"} & set(sys.modules))
"""
    result = run(
        code, "ask", "--video", video, "--question", "What?", "--set", "compression.retention_ratio=0"
    )
    assert (result.returncode, result.stdout) == (2, "set()\n")
    assert result.stderr.startswith(
        "error: compression.retention_ratio (--set compression.retention_ratio=0): got 0"
    )


FAKE_PROGRAM = """
from types import SimpleNamespace
from llava_scissor.cli import app, ask
clip = SimpleNamespace(source="", indices=(), timestamps_s=(), num_source_frames=0, num_missing=0, fps=None)
compression = SimpleNamespace(num_input=1, num_spatial=1, num_kept=1, tau=None)
counts = dict(num_prompt_tokens=1, num_new_tokens=1)
media = dict(compression=compression, compressions=[compression], clip=clip, image_sizes=[])
answer = SimpleNamespace(text="\\u4e00 circle", timings_s={}, **media, **counts)
def fake(question, history, on_text):
    if on_text is not None:
        on_text(answer.text)
    return answer
ask._open_session = lambda config, options: SimpleNamespace(ask=fake, timings_s={})
app.main()
"""


@pytest.mark.parametrize("option", [[], ["--stream"], ["--json"]])
def test_a_terminal_that_cannot_show_the_answer(video: str, option: list[str]) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = run(FAKE_PROGRAM, "ask", "--video", video, "--question", "What?", *option, env=environment)
    assert result.returncode == 0
    expected = '{"answer": "\\u4e00 circle"' if option == ["--json"] else "? circle\n"
    assert result.stdout.startswith(expected)


@pytest.mark.parametrize("option", [[], ["--stream"], ["--json"]])
def test_a_closed_pipe_is_no_traceback(video: str, option: list[str]) -> None:
    command = [
        sys.executable,
        "-c",
        FAKE_PROGRAM,
        "ask",
        "--video",
        video,
        "--question",
        "What?",
        "-q",
        *option,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (1, "")
