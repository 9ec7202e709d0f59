"""The command around a fake model."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

import llava_scissor
from llava_scissor import cli
from llava_scissor._version import __version__
from llava_scissor.config import Config, load_config, to_dict
from llava_scissor.errors import (
    CheckpointError,
    ConfigError,
    InputError,
    MissingDependencyError,
    ScissorError,
    VideoError,
)

TIMINGS_S = {
    "decode": 0.5,
    "preprocess": 0.25,
    "vision_tower": 1.5,
    "compression": 0.125,
    "prefill": 2.0,
    "generate": 1.0,
    "total": 5.375,
}


def make_answer(**changes) -> SimpleNamespace:
    clip = SimpleNamespace(
        source="clip.mp4",
        indices=(0, 4, 9),
        timestamps_s=(0.0, 0.4, 0.9),
        num_source_frames=10,
        num_missing=0,
        fps=10.0,
    )
    compression = SimpleNamespace(num_input=1000, num_spatial=250, num_kept=99, tau=0.87654)
    answer = {
        "text": "A red [bold] circle.",
        "compression": compression,
        "clip": clip,
        "timings_s": TIMINGS_S,
        "num_prompt_tokens": 120,
        "num_new_tokens": 7,
    }
    return SimpleNamespace(**(answer | changes))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch):
    """Replace the model: records its calls, streams three pieces, and gives or raises its `outcome`."""
    state = SimpleNamespace(calls=[], outcome=make_answer())

    def answer(config, options, on_text):
        state.calls.append(SimpleNamespace(config=config, options=options))
        if isinstance(state.outcome, Exception):
            raise state.outcome
        if on_text is not None:
            for piece in ("A red ", "[bold] ", "circle."):
                on_text(piece)
        return state.outcome

    monkeypatch.setattr(cli, "_answer", answer)
    return state


def ask(video: str, *options: str, question: str = "What?") -> Result:
    return CliRunner().invoke(cli.app, ["ask", "--video", video, "--question", question, *options])


def test_the_answer_comes_first_then_tokens_tau_and_times(engine, video: str) -> None:
    result = ask(video)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "A red [bold] circle.",
        "",
        "frames        3 of 10",
        "tokens        1,000 -> 250 (25.0 %) -> 99 (9.9 %)",
        "tau           0.8765",
        "decode          0.500 s",
        "preprocess      0.250 s",
        "vision tower    1.500 s",
        "compression     0.125 s",
        "prefill         2.000 s",
        "generate        1.000 s  7 tokens",
        "total           5.375 s",
    ]


def test_what_is_used_is_on_stderr(engine, video: str) -> None:
    result = ask(video, "--set", "compression.retention_ratio=0.1")
    assert result.stderr.splitlines() == [
        "model: path=demo device=auto dtype=auto attn_implementation=auto",
        "video: decoder=pyav resize=pil",
        "compression: retention_ratio=0.1 seed=0 method=scissor",
        "generation: max_new_tokens=256 do_sample=False seed=0",
    ]
    assert ask(video, "--quiet").stderr == ""


def test_missing_frames_and_a_method_without_tau(engine, video: str) -> None:
    engine.outcome.clip.num_missing = 2
    engine.outcome.compression.tau = None
    lines = ask(video).stdout.splitlines()
    assert "frames        3 of 10, 2 could not be decoded" in lines
    assert "tau           none" in lines


def test_an_empty_answer_is_said(engine, video: str) -> None:
    engine.outcome = make_answer(text="")
    assert ask(video).stdout.startswith("(the model wrote nothing)\n")


def test_a_long_answer_is_one_line(engine, video: str) -> None:
    engine.outcome = make_answer(text="word " * 100 + "end")
    assert ask(video).stdout.splitlines()[0] == "word " * 100 + "end"


def test_json(engine, video: str) -> None:
    result = ask(video, "--json", "--set", "compression.retention_ratio=0.1")
    assert json.loads(result.stdout.splitlines()[-1]) == {
        "answer": "A red [bold] circle.",
        "tokens": {"input": 1000, "spatial": 250, "kept": 99},
        "tau": 0.87654,
        "timings_s": TIMINGS_S,
        "num_prompt_tokens": 120,
        "num_new_tokens": 7,
        "video": {
            "source": "clip.mp4",
            "indices": [0, 4, 9],
            "timestamps_s": [0.0, 0.4, 0.9],
            "num_source_frames": 10,
            "num_missing": 0,
            "fps": 10.0,
        },
        "config": to_dict(load_config(None, ["compression.retention_ratio=0.1"])),
        "version": __version__,
    }
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize("tau", [None, float("inf"), float("-inf")])
def test_json_has_no_infinity(engine, video: str, tau: float | None) -> None:
    engine.outcome.compression.tau = tau
    assert json.loads(ask(video, "--json").stdout)["tau"] is None


def test_streaming_prints_the_text_once(engine, video: str) -> None:
    lines = ask(video, "--stream").stdout.splitlines()
    assert lines[:3] == ["A red [bold] circle.", "", lines[2]]
    assert lines[2].startswith("frames")


def test_streaming_with_json_goes_to_stderr(engine, video: str) -> None:
    result = ask(video, "--stream", "--json", "--quiet")
    assert result.stderr == "A red [bold] circle.\n"
    assert json.loads(result.stdout)["answer"] == "A red [bold] circle."


def test_without_stream_the_model_is_not_asked_to_stream(engine, video: str) -> None:
    assert ask(video).stdout.count("circle") == 1


def test_options_reach_the_engine(engine, video: str, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("model: {path: from-file}\nvideo: {num_frames: 4}\ncompression: {tau: 0.5}\n")
    options = [
        "--config",
        str(settings),
        "--set",
        "compression.tau=0.6",
        "--set",
        "generation.max_new_tokens=9",
    ]
    result = ask(video, *options, question="How many?")
    assert result.exit_code == 0
    (call,) = engine.calls
    assert (call.options.video, call.options.question) == (video, "How many?")
    assert (call.config.model.path, call.config.video.num_frames) == ("from-file", 4)
    assert (call.config.compression.tau, call.config.generation.max_new_tokens) == (0.6, 9)


@pytest.mark.parametrize("path", ["/some/where", "123", "true", "a: b", 'quote"d', "C:\\models", "modèle"])
def test_model_is_taken_as_it_is_and_wins(engine, video: str, path: str) -> None:
    assert ask(video, "--model", path, "--set", "model.path=other").exit_code == 0
    assert engine.calls[0].config.model.path == path


def test_the_default_is_the_shipped_demo(engine, video: str) -> None:
    ask(video)
    assert engine.calls[0].config == Config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--set", "compression.tau=1.7"],
            "error: compression.tau (--set compression.tau=1.7): got 1.7, expected",
        ),
        (
            ["--set", "tau=0.5"],
            "error: --set tau=0.5: expected section.key=value, for example compression.tau=0.5",
        ),
        (
            ["--set", "compression.epsilon=0.1", "--set", "compression.sample_size=9"],
            "expected only one of the two",
        ),
        (["--config", "missing.yaml"], "error: missing.yaml: cannot read the settings: No such file"),
        (["--model", ""], "got the text '', expected text that is not empty"),
    ],
)
def test_bad_settings_stop_before_the_model(engine, video: str, options: list[str], message: str) -> None:
    result = ask(video, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert engine.calls == []


def test_all_problems_of_the_settings_are_shown(engine, video: str, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("compression:\n  tau: 2\nmodel: {dtype: half}\nvidoe: {}\n")
    lines = ask(video, "--config", str(settings)).stderr.splitlines()
    assert len(lines) == 3
    assert all(str(settings) in line for line in lines)


@pytest.mark.parametrize("question", ["", " \n"])
def test_an_empty_question_is_refused(engine, video: str, question: str) -> None:
    result = ask(video, question=question)
    assert (result.exit_code, engine.calls) == (2, [])
    assert result.stderr == "error: --question: got an empty text, expected a question\n"


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (ConfigError("dtype"), 2),
        (InputError("shape"), 2),
        (VideoError("clip.mp4: no video stream"), 1),
        (CheckpointError("missing weights:\n  a.weight"), 1),
        (MissingDependencyError("decord"), 1),
        (ScissorError("[red]anything[/red]"), 1),
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"], ["--quiet"]])
def test_a_mistake_is_one_message_and_an_exit_code(
    engine, video: str, error: ScissorError, exit_code: int, options: list[str]
) -> None:
    engine.outcome = error
    result = ask(video, *options)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr.endswith(f"error: {error}\n")
    assert "Traceback" not in result.stderr


def test_a_bug_is_not_hidden(engine, video: str) -> None:
    engine.outcome = RuntimeError("a bug")
    assert isinstance(ask(video).exception, RuntimeError)


def test_a_warning_about_the_settings_is_shown(engine, video: str) -> None:
    result = ask(video, "--set", "generation.temperature=0.5")
    assert "warning: generation.temperature has no effect with generation.do_sample false\n" in result.stderr
    assert result.exit_code == 0


def test_verbose_and_quiet_exclude_each_other(engine, video: str) -> None:
    result = ask(video, "-v", "-q")
    assert result.exit_code == 2
    assert "--verbose and --quiet exclude each other" in result.stderr


def test_logging_is_left_as_it_was(engine, video: str) -> None:
    logger = cli.logging.getLogger("llava_scissor")
    before = (logger.level, list(logger.handlers))
    ask(video, "-v")
    assert (logger.level, list(logger.handlers)) == before


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
    fake_module("model", "load_model", SimpleNamespace(device="cpu", dtype="float32"))
    fake_module("generation", "ask", make_answer())
    return calls


def test_model_compressor_and_settings_are_wired(room_calls: dict, video: str) -> None:
    result = ask(video, "--model", "here", "--set", "model.device=cpu", "--set", "compression.tau=0.5")
    assert result.exit_code == 0
    config = load_config(None, ["model.path=here", "model.device=cpu", "compression.tau=0.5"])
    model = SimpleNamespace(device="cpu", dtype="float32")
    assert room_calls == {
        "build_compressor": ((config.compression,), {}),
        "load_model": (
            ("here", "cpu", "auto", "auto", "a compressor"),
            {"device_map": None, "quantization": None},
        ),
        "ask": ((model, video, "What?", config.video, config.generation, None), {}),
    }


@pytest.mark.parametrize("name", ["missing.mp4", "x" * 5000, "", ".", "/dev/null"])
def test_an_unusable_video_is_refused_before_the_model(room_calls: dict, name: str) -> None:
    result = ask(name)
    assert (result.exit_code, result.stdout, room_calls) == (1, "", {})
    assert "\nerror: " in result.stderr
    assert "Traceback" not in result.stderr
