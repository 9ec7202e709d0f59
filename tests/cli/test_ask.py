"""The command around a fake model."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

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
from llava_scissor.model import Turn
from tests.cli.fake_answers import OPENING_S, TIMINGS_S, ask, ask_without_video, make_answer, make_text_answer


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
        "compression: images=False method=scissor preset=paper retention_ratio=0.1 positions=consecutive seed=0",
        "generation: max_new_tokens=256 do_sample=False seed=0",
    ]
    assert ask(video, "--quiet").stderr == ""


def test_both_thresholds_are_shown_where_they_differ(engine, video: str) -> None:
    engine.outcome.compression.tau_spatial = 0.9
    assert "tau           0.9000 inside frames, 0.8765 across" in ask(video).stdout.splitlines()


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
        "tau_spatial": 0.87654,
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
    logger = logging.getLogger("llava_scissor")
    before = (logger.level, list(logger.handlers))
    ask(video, "-v")
    assert (logger.level, list(logger.handlers)) == before


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
    assert set(result) == {
        "answers",
        "tokens",
        "tau",
        "tau_spatial",
        "timings_s",
        "video",
        "images",
        "config",
        "version",
    }


def test_one_empty_question_among_several_is_refused(engine, video: str) -> None:
    result = ask(video, "--question", " ")
    assert (result.exit_code, engine.calls) == (2, [])
