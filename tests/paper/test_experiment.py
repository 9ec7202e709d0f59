from __future__ import annotations

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import yaml

from llava_scissor.config import NoCompressionConfig, load_config
from llava_scissor.errors import ConfigError
from llava_scissor.paper import reproduction as module
from llava_scissor.paper.harness import EXPERIMENTS
from llava_scissor.paper.reproduction import find_missing, load_experiment
from llava_scissor.paper.tables import read_table

FILES = sorted(EXPERIMENTS.glob("*.yaml"))
TOY = Path(__file__).with_name("shapes_experiment.yaml")


FULL = {"method": "LLaVA-OneVision", "retention": 100, "model_args": {}}


def changed(tmp_path, **keys) -> Path:
    """Table 3's experiment with other values."""
    content = yaml.safe_load((EXPERIMENTS / "table3.yaml").read_text(encoding="utf-8")) | keys
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v != "gone"}), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_an_experiment_of_its_table(path: Path) -> None:
    experiment = load_experiment(path)
    assert path.name == f"table{experiment.table}.yaml"
    assert path.read_text(encoding="utf-8").startswith(f"# Table {experiment.table}: ")
    assert len(experiment.data) == len(experiment.tasks)
    printed = {(row["method"], row["retention"]) for row in read_table(experiment.table).rows}
    ours = [(run.method, run.retention) for run in experiment.runs]
    assert set(ours) - printed == ({ours[0]} if experiment.table == "6" else set())
    assert ours[0][1] == 100
    assert experiment.needs_judge == any("gpt" in s for c in experiment.columns.values() for s in c.scores)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_run_has_the_settings_of_its_row(path: Path) -> None:
    experiment = load_experiment(path)
    assert len({(run.method, run.retention) for run in experiment.runs}) == len(experiment.runs)
    for run in experiment.runs:
        settings = experiment.model_args | run.model_args
        assert settings.pop("use_until") is False
        sections = {"num_frames": "video", "dtype": "model"}
        overrides = [f"{sections.get(key, 'compression')}.{key}={value}" for key, value in settings.items()]
        config = load_config(None, overrides)
        assert config.video.num_frames == 32
        if run.retention == 100:
            assert isinstance(config.compression, NoCompressionConfig)
        else:
            assert config.compression.retention_ratio == run.retention / 100


def test_every_row_of_the_papers_method_is_run() -> None:
    assert [path.stem for path in FILES] == ["table1", "table2", "table3", "table6", "table7"]
    for path in FILES:
        experiment = load_experiment(path)
        printed = [
            r["retention"] for r in read_table(experiment.table).rows if r["method"] == "LLaVA-Scissor"
        ]
        assert [run.retention for run in experiment.runs if run.method == "LLaVA-Scissor"] == printed


def test_columns_average_as_the_paper_does() -> None:
    """The mean over the columns is the paper's: all scores of the table, without its own means."""
    for path in FILES:
        experiment = load_experiment(path)
        means = {"method", "retention", "videochatgpt_avg", "avg_percent", "avg"}
        averaged = set(read_table(experiment.table).rows[0]) - means
        assert set(experiment.columns) == ({"avg"} if experiment.table == "3" else averaged)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tasks": "gone"}, "(?s)tasks.*Field required"),
        ({"tsks": []}, "(?s)tsks.*Extra inputs are not permitted"),
        ({"runs": [FULL]}, "(?s)runs.*at least 2"),
    ],
)
def test_files_that_are_no_experiment(keys, message, tmp_path) -> None:
    path = changed(tmp_path, **keys)
    with pytest.raises(ConfigError, match=message) as caught:
        load_experiment(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["a: b: c", None, "[1"])
def test_files_that_cannot_be_read(content, tmp_path) -> None:
    path = tmp_path / "experiment.yaml"
    if content:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read as an experiment"):
        load_experiment(path)


def test_what_is_missing_and_how_to_get_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    experiment = load_experiment(EXPERIMENTS / "table6.yaml")
    harness, weights, *data, fetch, judge = find_missing(experiment, str(tmp_path / "7b"), tmp_path / "hf")
    assert "lmms-eval is not installed" in harness
    assert weights.endswith(f"hf download BBBBCHAN/LLaVA-Scissor-baseline-7B --local-dir {tmp_path / '7b'}")
    assert len(data) == 5
    assert data[1] == f"OpenGVLab/MVBench: its videos are not in {tmp_path / 'hf' / 'mvbench_video'}"
    assert f"HF_HOME={tmp_path / 'hf'} lmms-eval --model dummy --tasks activitynetqa,mvbench" in fetch
    assert "OPENAI_API_KEY" in judge


def test_nothing_is_missing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    experiment = load_experiment(EXPERIMENTS / "table6.yaml")
    for directory in experiment.data:
        (tmp_path / directory).mkdir()
    assert len(find_missing(experiment, str(tmp_path), tmp_path)) == 6  # nothing lies in the directories
    for directory in experiment.data:
        (tmp_path / directory / "a.mp4").touch()
    assert find_missing(experiment, str(tmp_path), tmp_path) == []
    assert find_missing(load_experiment(TOY), "demo", tmp_path) == []
