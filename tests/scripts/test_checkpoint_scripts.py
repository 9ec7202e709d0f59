"""`make_random_checkpoint.py` and `measure_loading.py` with a model small enough for a test."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from llava_scissor.model import load_model, published
from llava_scissor.model.inspection import inspect_checkpoint
from scripts import make_random_checkpoint, measure_loading

TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
LANGUAGE = {
    "vocab_size": 80,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def run(script, monkeypatch, capsys, *arguments: object) -> dict:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    script.main()
    return json.loads(capsys.readouterr().out)


def test_a_checkpoint_is_written_and_loaded(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(published._LANGUAGE, "0.5b", LANGUAGE)
    monkeypatch.setattr(published, "_TOWER", published._TOWER | TOWER)
    options = ("--out", tmp_path, "--layout", "huggingface", "--shard-size", "50KB")
    written = run(make_random_checkpoint, monkeypatch, capsys, *options)
    report = inspect_checkpoint(tmp_path)
    assert (report.problems, report.layout, report.images["num_grids"]) == ([], "huggingface", 36)
    assert written["files"] == report.num_files > 1
    num_bytes = sum(p.nbytes for p in load_model(tmp_path, device="cpu").parameters())
    measured = run(measure_loading, monkeypatch, capsys, "--model", tmp_path, "--frames", 0)
    assert measured["bytes_of_weights"] == num_bytes == 2 * report.num_parameters["total"]


def test_the_size_must_be_a_published_one(tmp_path: Path, monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit):
        run(make_random_checkpoint, monkeypatch, capsys, "--out", tmp_path, "--size", "1b")
    assert "invalid choice: '1b'" in capsys.readouterr().err
