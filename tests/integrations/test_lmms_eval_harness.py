"""The plugin in lmms-eval itself: where it is installed, or where LMMS_EVAL_PYTHON names a Python that has it.

Each test starts the harness in a process of its own, which takes about half a minute.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llava_scissor import ask, build_compressor, load_model
from llava_scissor.config import ScissorConfig
from tests.integrations import lmms_eval_stand_in
from tests.integrations.local_task import NAME, other_docs, video_docs, write_task

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("LMMS_EVAL_PYTHON") or (importlib.util.find_spec("lmms_eval") and sys.executable)

pytestmark = [
    pytest.mark.lmms_eval,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not PYTHON, reason="lmms-eval is not installed, and LMMS_EVAL_PYTHON names no Python that has it"
    ),
]

ONE_PROCESS = ("-m", "lmms_eval")
TWO_PROCESSES = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", *ONE_PROCESS)
"""The launcher for several GPUs; without any, the processes compute on CPUs."""

SHAPES = """
import importlib, inspect, json, sys
found = {}
for module, names in json.loads(sys.argv[1]).items():
    for name in names:
        cls = getattr(importlib.import_module(module), name)
        found[name] = {
            "parameters": list(inspect.signature(cls).parameters),
            "abstract": sorted(getattr(cls, "__abstractmethods__", ())),
            "members": [m for m in dir(cls) if not m.startswith("_")],
            "create": list(inspect.signature(cls.create_from_arg_string).parameters) if name == "lmms" else [],
        }
print("FOUND" + json.dumps(found))
"""


def run_python(*arguments: str, tmp_path: Path, code: int = 0) -> str:
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [PYTHON, *arguments], cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def evaluate(docs: list[dict], tmp_path: Path, *options: str, code: int = 0, launcher=ONE_PROCESS) -> str:
    include = write_task(tmp_path / "task", docs)
    return run_python(
        *launcher,
        *("--model", "llava_scissor", "--tasks", NAME, "--include_path", str(include)),
        *("--log_samples", "--output_path", str(tmp_path / "out"), *options),
        tmp_path=tmp_path,
        code=code,
    )


def said(tmp_path: Path) -> list[str]:
    """The answers that the harness wrote down, in the order of the documents."""
    (path,) = (tmp_path / "out").rglob(f"*_samples_{NAME}.jsonl")
    samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [s["filtered_resps"] for s in sorted(samples, key=lambda s: s["doc_id"])]


def score(tmp_path: Path) -> float:
    (path,) = (tmp_path / "out").rglob("*_results.json")
    return json.loads(path.read_text(encoding="utf-8"))["results"][NAME]["right,none"]


@pytest.fixture(scope="module")
def expected() -> list[str]:
    """What `ask` says about the shipped clips."""
    compressor = build_compressor(ScissorConfig(retention_ratio=0.1))
    model = load_model("demo", device="cpu", compressor=compressor)
    return [ask(model, doc["video"], doc["question"]).text for doc in video_docs()]


def test_the_stand_in_is_like_the_harness(tmp_path) -> None:
    modules = {name: [m.__name__ for m in members] for name, members in lmms_eval_stand_in.MODULES.items()}
    printed = run_python("-c", SHAPES, json.dumps(modules), tmp_path=tmp_path)
    real = json.loads(printed.partition("FOUND")[2].splitlines()[0])
    stand_ins = [member for members in lmms_eval_stand_in.MODULES.values() for member in members]
    assert len(stand_ins) == len(real) == 5
    for cls in stand_ins:
        found = real[cls.__name__]
        parameters = list(inspect.signature(cls).parameters)
        assert found["parameters"][: len(parameters)] == parameters
        assert found["abstract"] == sorted(getattr(cls, "__abstractmethods__", ()))
        assert {name for name in dir(cls) if not name.startswith("_")} <= {*found["members"], *parameters}
    create = inspect.signature(lmms_eval_stand_in.lmms.create_from_arg_string)
    assert real["lmms"]["create"] == list(create.parameters)


def test_a_local_task_on_real_videos(expected, tmp_path) -> None:
    docs = video_docs() + other_docs(tmp_path)
    arguments = (
        "--model_args",
        "pretrained=demo,retention_ratio=0.1",
        "--batch_size",
        "4",
        "--device",
        "cpu",
    )
    evaluate(docs, tmp_path, *arguments)
    answers = said(tmp_path)
    assert answers[: len(expected)] == expected
    assert all(answers[len(expected) :])
    right = sum(answer == doc["answer"] for answer, doc in zip(answers, docs, strict=True))
    assert score(tmp_path) == pytest.approx(right / len(docs))
    assert right > len(expected) / 2


def test_two_processes_answer_as_one(expected, tmp_path) -> None:
    arguments = ("--model_args", "pretrained=demo,retention_ratio=0.1")
    evaluate(video_docs(), tmp_path, *arguments, launcher=TWO_PROCESSES)
    assert said(tmp_path) == expected


@pytest.mark.parametrize(("launcher", "share"), [(ONE_PROCESS, "1 of 4"), (TWO_PROCESSES, "1 of 2")])
def test_a_broken_video_ends_the_run(launcher, share, tmp_path) -> None:
    """Of two processes the other one must not wait for the one that failed."""
    docs = video_docs(1)[:4]
    docs[0]["video"] = str(tmp_path / "gone.mp4")
    printed = evaluate(docs, tmp_path, "--model_args", "retention_ratio=0.1", code=1, launcher=launcher)
    assert f"{share} questions could not be asked" in printed
    assert "gone.mp4" in printed
    assert list((tmp_path / "out").rglob("*_results.json")) == []


def test_a_table_is_run_and_printed(tmp_path) -> None:
    """The way of `--table N`, with an experiment on the shipped clips; the second time nothing is run."""
    include = write_task(tmp_path / "task", video_docs())
    command = [
        str(ROOT / "scripts" / "reproduce.py"),
        *("--experiment", str(Path(__file__).with_name("shapes_experiment.yaml")), "--checkpoint", "demo"),
        *("--results", str(tmp_path / "results"), "--include-path", str(include), "--json"),
    ]
    first = run_python(*command, tmp_path=tmp_path).splitlines()
    table = next(json.loads(line) for line in first if line.startswith('{"table"'))
    full, scissor, random = table["rows"]
    assert [row["share"] for row in (full,)] == [100]
    assert full["ours"] > 90
    assert all(row["low"] <= row["share"] <= row["high"] for row in (scissor, random))
    assert random["high"] < 100
    assert scissor["ours"] > random["ours"]
    assert {row["questions"] for row in (scissor, random)} == {25}
    (samples,) = (tmp_path / "results" / "Scissor-10").rglob(f"*_samples_{NAME}.jsonl")
    right = [json.loads(line)["right"]["score"] for line in samples.read_text(encoding="utf-8").splitlines()]
    assert scissor["ours"] == pytest.approx(100 * sum(right) / 25)
    assert json.loads(run_python(*command, tmp_path=tmp_path)) == table
