"""How the command calls the rooms below it."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import llava_scissor
from llava_scissor.config import load_config
from llava_scissor.model import Images
from tests.cli.fake_answers import OPENING_S, ask, ask_without_video, make_answer


@pytest.fixture
def room_calls(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Replace the rooms that the command calls by recorders of their arguments."""
    calls = {}

    def fake_module(name: str, function_name: str, result) -> None:
        def record(*args, **kwargs):
            calls[function_name] = (args, kwargs)
            return result

        module = types.ModuleType(f"llava_scissor.{name}")
        setattr(module, function_name, record)
        monkeypatch.setitem(sys.modules, f"llava_scissor.{name}", module)
        monkeypatch.setattr(llava_scissor, name, module, raising=False)

    fake_module("compression", "build_compressor", "a compressor")
    fake_module("model", "load_model_from", SimpleNamespace(device="cpu", dtype="float32"))
    sys.modules["llava_scissor.model"].Images = Images
    fake_module(
        "generation", "Session", SimpleNamespace(ask=lambda *_, **__: make_answer(), timings_s=OPENING_S)
    )
    return calls


def test_model_compressor_and_settings_are_wired(room_calls: dict, video: str) -> None:
    result = ask(video, "--model", "here", "--set", "model.device=cpu", "--set", "compression.tau=0.5")
    assert result.exit_code == 0
    config = load_config(None, ["model.path=here", "model.device=cpu", "compression.tau=0.5"])
    model = SimpleNamespace(device="cpu", dtype="float32")
    assert room_calls == {
        "build_compressor": ((config.compression,), {}),
        "load_model_from": ((config.model, "a compressor"), {}),
        "Session": ((model, video, config.video, config.generation), {}),
    }


@pytest.mark.parametrize("name", ["missing.mp4", "x" * 5000, "", ".", "/dev/null"])
def test_an_unusable_video_is_refused_before_the_model(room_calls: dict, name: str) -> None:
    result = ask(name)
    assert (result.exit_code, result.stdout, room_calls) == (1, "", {})
    assert "\nerror: " in result.stderr
    assert "Traceback" not in result.stderr


def test_an_image_that_cannot_be_read_is_refused_before_the_model(room_calls: dict, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG nothing more")
    for name in ("missing.png", str(broken), str(tmp_path)):
        result = ask_without_video("--image", name, "--question", "What?")
        assert (result.exit_code, result.stdout, room_calls) == (1, "", {})
        assert "\nerror: " in result.stderr


@pytest.mark.parametrize("compress", ["true", "false"])
def test_images_are_wired(room_calls: dict, tmp_path: Path, compress: str) -> None:
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    for path in paths:
        Image.new("RGB", (4, 3)).save(path)
    options = [word for path in paths for word in ("--image", path)]
    result = ask_without_video(*options, "--question", "What?", "--set", f"compression.images={compress}")
    assert result.exit_code == 0, result.output
    images = room_calls["Session"][0][1]
    assert (list(images.sources), images.compress) == (paths, compress == "true")
