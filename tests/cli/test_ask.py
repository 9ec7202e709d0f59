"""The command around a fake model."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import llava_scissor
from llava_scissor import cli
from llava_scissor._version import __version__
from llava_scissor.config import Config, load_config, to_dict
from llava_scissor.errors import (
    CheckpointError,
    ConfigError,
    ImageError,
    InputError,
    MissingDependencyError,
    ScissorError,
    VideoError,
)
from llava_scissor.model import Images, Turn

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
        "history": (Turn("What?", "A red [bold] circle."),),
        "compressions": (compression,),
        "compression": compression,
        "clip": clip,
        "image_sizes": (),
        "timings_s": {"prefill": 2.0, "generate": 1.0, "total": 3.0},
        "num_prompt_tokens": 120,
        "num_visual_tokens": 99,
        "num_cached_tokens": 0,
        "num_new_tokens": 7,
    }
    return SimpleNamespace(**(answer | changes))


def make_text_answer(**changes) -> SimpleNamespace:
    return make_answer(compressions=(), compression=None, clip=None, num_visual_tokens=0, **changes)


OPENING_S = {"decode": 0.5, "preprocess": 0.25, "vision_tower": 1.5, "compression": 0.125, "total": 2.375}


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

    monkeypatch.setattr(cli, "_open_session", open_session)
    return state


def ask(video: str, *options: str, question: str = "What?") -> Result:
    return CliRunner().invoke(cli.app, ["ask", "--video", video, "--question", question, *options])


def ask_without_video(*options: str) -> Result:
    return CliRunner().invoke(cli.app, ["ask", *options])


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
        "compression: retention_ratio=0.1 seed=0 method=scissor images=False",
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
        "images": [],
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
    assert (call.options.video, call.options.questions) == (video, ("How many?",))
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
        (ImageError("a.png is damaged"), 1),
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
        "load_model": (
            ("here", "cpu", "auto", "auto", "a compressor"),
            {"device_map": None, "quantization": None},
        ),
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


def test_video_and_images_exclude_each_other(engine, video: str) -> None:
    result = ask(video, "--image", "a.png")
    assert (result.exit_code, engine.calls) == (2, [])
    assert "--video and --image exclude each other" in result.stderr


def test_images_are_shown_with_their_sizes(engine) -> None:
    engine.outcome = make_text_answer()
    engine.outcome.num_visual_tokens = 2929
    engine.outcome.image_sizes = ((480, 640),)
    engine.opening_s = {"decode": 0.5, "total": 0.5}
    lines = ask_without_video("--image", "a.png", "--question", "What?").stdout.splitlines()
    assert lines[2:5] == ["image         640 x 480", "tokens        2,929", "decode          0.500 s"]
    result = json.loads(ask_without_video("--image", "a.png", "--question", "What?", "--json").stdout)
    assert result["images"] == [{"source": "a.png", "height": 480, "width": 640}]
    assert result["tokens"] == {"input": 2929, "spatial": 2929, "kept": 2929}
    assert (result["tau"], result["video"]) == (None, None)
    engine.outcome.image_sizes = ((480, 640), (2, 3))
    lines = ask_without_video("--image", "a", "--image", "b", "--question", "What?").stdout.splitlines()
    assert lines[2] == "images        640 x 480, 3 x 2"


def test_compressed_images_are_counted_together(engine) -> None:
    one = SimpleNamespace(num_input=50, num_spatial=30, num_kept=5, tau=0.5)
    engine.outcome = make_text_answer(image_sizes=((3, 4), (3, 4)))
    engine.outcome.compressions = (one, one)
    lines = ask_without_video("--image", "a", "--image", "b", "--question", "What?").stdout.splitlines()
    assert lines[3] == "tokens        100 -> 60 (60.0 %) -> 10 (10.0 %)"


def test_text_only(engine) -> None:
    engine.outcome, engine.opening_s = make_text_answer(), {"total": 0.0}
    result = ask_without_video("--question", "What?")
    assert result.stdout.splitlines() == [
        *("A red [bold] circle.", "", "prefill         2.000 s", "generate        1.000 s  7 tokens"),
        "total           3.000 s",
    ]


@pytest.mark.parametrize("options", [[], ["--stream"]])
def test_several_questions_are_asked_in_one_session(engine, video: str, options: list[str]) -> None:
    lines = ask(video, "--question", "And?", *options).stdout.splitlines()
    assert lines[:5] == ["What?", "A red [bold] circle.", "And?", "A red [bold] circle.", ""]
    assert lines[-3:] == [
        "prefill         4.000 s",
        "generate        2.000 s  14 tokens",
        "total           8.375 s",
    ]
    assert len(engine.calls) == 1
    assert engine.asked == [("What?", ()), ("And?", ())]


def test_a_conversation_hands_the_history_on(engine, video: str) -> None:
    ask(video, "--question", "And?", "--question", "So?", "--conversation")
    first, second = Turn("What?", "A red [bold] circle."), Turn("And?", "A red [bold] circle.")
    assert engine.asked == [("What?", ()), ("And?", (first,)), ("So?", (first, second))]
    assert "--conversation has no effect with one --question" in ask(video, "--conversation").stderr


def test_json_of_several_questions(engine, video: str) -> None:
    engine.outcome.num_cached_tokens = 60
    result = json.loads(ask(video, "--question", "And?", "--json").stdout)
    answer = {
        "answer": "A red [bold] circle.",
        "timings_s": {"prefill": 2.0, "generate": 1.0, "total": 3.0},
        "num_prompt_tokens": 120,
        "num_cached_tokens": 60,
        "num_new_tokens": 7,
    }
    assert result["answers"] == [{"question": "What?", **answer}, {"question": "And?", **answer}]
    assert result["timings_s"] == OPENING_S
    assert set(result) == {"answers", "tokens", "tau", "timings_s", "video", "images", "config", "version"}


def test_one_empty_question_among_several_is_refused(engine, video: str) -> None:
    result = ask(video, "--question", " ")
    assert (result.exit_code, engine.calls) == (2, [])
