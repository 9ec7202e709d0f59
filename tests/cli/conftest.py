from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from llava_scissor.cli import ask as command
from llava_scissor.model import Turn
from tests.cli.fake_answers import OPENING_S, make_answer


@pytest.fixture
def video(tmp_path: Path) -> str:
    """A file that begins like an MP4."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"\0\0\0\x18ftypisom")
    return str(path)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch):
    """Replace the model: records its calls, streams three pieces, and gives or raises its `outcome`."""
    state = SimpleNamespace(calls=[], asked=[], outcome=make_answer(), opening_s=OPENING_S)

    def answer(question, history=(), generation_config=None, on_text=None):
        state.asked.append((question, history))
        if isinstance(state.outcome, Exception):
            raise state.outcome
        if on_text is not None:
            for piece in ("A red ", "[bold] ", "circle."):
                on_text(piece)
        turn = Turn(question, state.outcome.text)
        return SimpleNamespace(**(vars(state.outcome) | {"history": (*history, turn)}))

    def open_session(config, options):
        state.calls.append(SimpleNamespace(config=config, options=options))
        return SimpleNamespace(ask=answer, timings_s=state.opening_s)

    monkeypatch.setattr(command, "_open_session", open_session)
    return state
