"""The model plugin, called as lmms-eval calls it; what it imports of the harness is a stand-in."""

from __future__ import annotations

import importlib
import logging
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from llava_scissor import ask, load_model
from llava_scissor.config import GenerationConfig, ScissorConfig
from llava_scissor.demo.clips import demo_clips
from llava_scissor.errors import ConfigError, InputError
from tests.integrations import lmms_eval_stand_in
from tests.integrations.lmms_eval_stand_in import Instance

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = "llava_scissor.integrations.lmms_eval"
CLIP = demo_clips()[1]
GREEDY = {"until": ["\n\n"], "max_new_tokens": 8, "temperature": 0.0, "do_sample": False, "num_beams": 1}


@pytest.fixture(scope="module")
def plugin():
    """The class, imported with the stand-in, as long as the module's tests run."""
    with pytest.MonkeyPatch.context() as patch:
        lmms_eval_stand_in.install(patch)
        patch.delitem(sys.modules, PLUGIN, raising=False)
        yield importlib.import_module(PLUGIN).LlavaScissor
    sys.modules.pop(PLUGIN, None)


def create(plugin, arguments: str = "", **harness):
    return plugin.create_from_arg_string(arguments, {"batch_size": "1", "device": "cpu", **harness})


@pytest.fixture(scope="module")
def model(plugin):
    return create(plugin, "pretrained=demo,retention_ratio=0.1")


def requests_of(model, docs: list[dict], kwargs: dict | None = None, repeats: int = 1) -> list[Instance]:
    """What the harness makes of documents with `visuals` and a `question`."""
    model.task_dict = {"toy": {"test": docs}}
    return [
        Instance(
            "generate_until",
            (doc["question"], kwargs or GREEDY, lambda doc: doc["visuals"], i, "toy", "test"),
            0,
            {"task": "toy", "doc_id": i, "repeats": repeats},
        )
        for i, doc in enumerate(docs)
        for _ in range(repeats)
    ]


def answers(model, docs, kwargs=None, repeats: int = 1) -> list[str]:
    return [result.text for result in model.generate_until(requests_of(model, docs, kwargs, repeats))]


def video_docs(path=CLIP.path) -> list[dict]:
    return [{"visuals": [str(path)], "question": question.text} for question in CLIP.questions]


@pytest.fixture(scope="module")
def expected(model) -> list[str]:
    """What `ask` says about the clip with the same settings."""
    compressor = importlib.import_module("llava_scissor").build_compressor(ScissorConfig(retention_ratio=0.1))
    asked = load_model("demo", device="cpu", compressor=compressor)
    return [ask(asked, CLIP.path, question.text).text for question in CLIP.questions]


def test_the_harness_finds_the_class() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    value = project["entry-points"]["lmms_eval.models"]["llava_scissor"]
    with pytest.MonkeyPatch.context() as patch:
        lmms_eval_stand_in.install(patch)
        manifest = EntryPoint("llava_scissor", value, "lmms_eval.models").load()()
    assert manifest.model_id == "llava_scissor"
    assert manifest.simple_class_path == f"{PLUGIN}.LlavaScissor"


@pytest.mark.parametrize("batch_size", [1, 4])
def test_answers_are_those_of_ask(batch_size, model, expected, monkeypatch) -> None:
    monkeypatch.setattr(model, "batch_size", batch_size)
    results = model.generate_until(requests_of(model, video_docs()))
    assert [result.text for result in results] == expected
    assert len(set(expected)) > 4
    assert {type(result).__name__ for result in results} == {"GenerationResult"}
    assert all(51 < result.token_counts.input_tokens < 51 + 60 for result in results)
    assert all(1 <= result.token_counts.output_tokens <= 8 for result in results)


def test_images_several_images_and_text_only(model, tmp_path) -> None:
    picture, other = Image.effect_noise((90, 60), 80), Image.effect_noise((60, 90), 80)
    other.save(tmp_path / "other.PNG")
    docs = [
        {"visuals": v, "question": "What is the background?"} for v in ([picture], [picture, other], None)
    ]
    docs += [{**docs[1], "visuals": [picture, str(tmp_path / "other.PNG")]}, {**docs[2], "visuals": []}]
    docs.append({**docs[1], "question": "<image> <image>\nWhat is the background?"})
    counts = [result.token_counts.input_tokens for result in model.generate_until(requests_of(model, docs))]
    text = counts[2]
    assert counts[0] - text > 256  # the whole and its tiles
    assert counts[1] - text == 2 * 257 + 1  # 16 x 16 patches and a newline each, a space between
    assert counts[3] == counts[5] == counts[1]
    assert counts[4] == text


@pytest.fixture
def broken(tmp_path) -> list[dict]:
    """Good and broken videos by turns."""
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(CLIP.path.read_bytes()[:2000])
    docs = video_docs()[:4]
    docs[1]["visuals"] = [str(tmp_path / "gone.mp4")]
    docs[3]["visuals"] = [str(cut)]
    return docs


def test_a_broken_video_fails_the_run_and_all_are_named(model, broken) -> None:
    with pytest.raises(SystemExit) as caught:
        answers(model, broken)
    message = str(caught.value)
    assert message.startswith("2 of 4 questions could not be asked:\n  toy, document 1: There is no file")
    assert "gone.mp4" in message
    assert "\n  toy, document 3: " in message
    assert "cut.mp4" in message
    assert "on_error=empty" in message


@pytest.mark.parametrize("batch_size", ["1", "3"])
def test_a_broken_video_can_be_an_empty_answer(batch_size, plugin, broken, expected, caplog) -> None:
    lenient = create(plugin, "retention_ratio=0.1,on_error=empty", batch_size=batch_size)
    with caplog.at_level(logging.ERROR):
        assert answers(lenient, broken) == [expected[0], "", expected[2], ""]
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.message.startswith("2 of 4 questions could not be asked:")
    assert "gone.mp4" in record.message
    assert "cut.mp4" in record.message


@pytest.mark.parametrize(
    ("doc", "message"),
    [
        (
            {"visuals": ["a.mp4", "b.mp4"], "question": "What?"},
            r"got 2 visuals \(str\), expected the path of",
        ),
        ({"visuals": [{"array": []}], "question": "What?"}, r"got 1 visuals \(dict\)"),
        ({"visuals": None, "question": "What is <image>?"}, "control token '<image>'"),
        ({"visuals": [str(CLIP.path)], "question": "What is <image>?"}, "control token '<image>'"),
        ({"visuals": ["no.png"], "question": "What?"}, r"no\.png"),
    ],
    ids=["two videos", "audio", "placeholder without visual", "placeholder inside", "no image"],
)
def test_what_cannot_be_asked_is_said(doc, message, model) -> None:
    with pytest.raises(SystemExit, match=message):
        answers(model, [doc])


def test_the_settings_of_a_task_are_honoured(model, expected) -> None:
    (doc, *_) = [d for d, said in zip(video_docs(), expected, strict=True) if len(said.split()) == 2]
    (both,) = answers(model, [doc])
    first, second = both.split()
    assert answers(model, [doc], {**GREEDY, "max_new_tokens": 1}) == [first]
    assert answers(model, [doc], {**GREEDY, "until": second}) == [first]
    assert answers(model, [doc], {**GREEDY, "until": None}) == [both]


def test_stop_texts_can_be_left_out(plugin, expected) -> None:
    (doc, said) = next(p for p in zip(video_docs(), expected, strict=True) if len(p[1].split()) == 2)
    model = create(plugin, "retention_ratio=0.1,use_until=false")
    assert answers(model, [doc], {**GREEDY, "until": [said.split()[1]]}) == [said]


@pytest.mark.parametrize(
    ("kwargs", "given", "seed"),
    [
        ({}, GenerationConfig(), 0),
        ({"temperature": 0.0, "top_p": 1.0, "do_sample": True}, GenerationConfig(), 0),
        ({"temperature": 0.7, "do_sample": False}, GenerationConfig(), 0),
        ({"temperature": 0.7, "top_p": None}, GenerationConfig(do_sample=True, temperature=0.7), 0),
        ({"do_sample": True, "top_k": 5}, GenerationConfig(do_sample=True, top_k=5), 0),
        ({"do_sample": True, "top_p": 0.5}, GenerationConfig(do_sample=True, top_p=0.5, seed=2), 2),
        ({"max_new_tokens": 3, "repetition_penalty": 1.1, "until": ["", "a"]}, None, 0),
    ],
)
def test_which_settings_a_task_means(kwargs, given, seed, model) -> None:
    given = given or GenerationConfig(max_new_tokens=3, repetition_penalty=1.1, stop=("a",))
    assert model._generation_config(kwargs, seed) == given


def test_repetitions_are_drawn_anew_and_again_the_same(model) -> None:
    kwargs = {"do_sample": True, "temperature": 50.0, "max_new_tokens": 3}
    drawn = answers(model, video_docs()[:1], kwargs, repeats=3)
    assert len(set(drawn)) > 1
    assert answers(model, video_docs()[:1], kwargs, repeats=3) == drawn


def test_settings_without_effect_are_named_once(model, caplog) -> None:
    model._warned.clear()
    kwargs = {**GREEDY, "image_aspect_ratio": "original"}
    answers(model, video_docs()[:2], kwargs)
    assert caplog.text.count("generation_kwargs.image_aspect_ratio of a task has no effect") == 1


def test_settings_that_cannot_be_followed_are_refused_before_the_work(model) -> None:
    docs = [{"visuals": ["gone.mp4"], "question": "What?"}]
    with pytest.raises(ConfigError, match="num_beams: got 5, expected 1"):
        answers(model, docs, {**GREEDY, "num_beams": 5})
    with pytest.raises(ConfigError, match="max_new_tokens: got 0"):
        answers(model, docs, {**GREEDY, "max_new_tokens": 0})


def test_other_types_of_requests_are_refused(model) -> None:
    with pytest.raises(InputError, match="requests of type loglikelihood, expected generate_until"):
        model.loglikelihood([])
    with pytest.raises(InputError, match="requests of type generate_until_multi_round"):
        model.generate_until_multi_round([])


def test_every_setting_is_an_argument(plugin, tmp_path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("compression: {tau: 0.8}\nvideo: {num_frames: 4}\n", encoding="utf-8")
    model = create(plugin, f"config={path},num_frames=2,compression.seed=3,epsilon=0.05,resize=torch")
    assert (model.config.video.num_frames, model.config.video.resize) == (2, "torch")
    assert model.config.compression == ScissorConfig(tau=0.8, epsilon=0.05, seed=3)
    assert (model.rank, model.world_size, model.device.type) == (0, 1, "cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("retention_rato=0.1", "got retention_rato=0.1, expected compression.retention_ratio"),
        ("seed=1", "got seed=1, expected compression.seed or generation.seed"),
        ("compression.tua=1", "did you mean 'tau'"),
        ("retention_ratio=2", "compression.retention_ratio .*got 2, expected a number above 0 and at most 1"),
        ("on_error=skip", "on_error: got 'skip', expected fail or empty"),
        ("method=random", "retention_ratio: missing, which method 'random' needs"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, message, plugin) -> None:
    with pytest.raises(ConfigError, match=message):
        create(plugin, arguments)


@pytest.mark.parametrize("size", ["auto", "0", "-1"])
def test_batch_sizes_that_cannot_be_used(size, plugin) -> None:
    with pytest.raises(ConfigError, match=f"batch_size: got '{size}', expected an integer of at least 1"):
        create(plugin, batch_size=size)


def test_a_process_of_several_takes_its_own_device(plugin, monkeypatch) -> None:
    processes = SimpleNamespace(process_index=1, num_processes=2, device="cuda:1")
    monkeypatch.setattr(sys.modules[PLUGIN], "Accelerator", lambda: processes)
    monkeypatch.setattr(sys.modules[PLUGIN], "load_model_from", lambda config, _: config)
    model = create(plugin, device=None)
    assert (model.rank, model.world_size, model.device) == (1, 2, "cuda:1")
    with pytest.raises(InputError, match="got device=cuda:0 and 2 processes, expected no device"):
        create(plugin, device="cuda:0")
