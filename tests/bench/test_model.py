from __future__ import annotations

import json

import pytest
import torch

from llava_scissor.bench import model as model_bench
from llava_scissor.bench.model import ModelBench, bench_model
from llava_scissor.bench.random_model import random_model
from llava_scissor.compression import Identity, Scissor
from llava_scissor.config import ScissorConfig
from llava_scissor.demo.clips import demo_clips
from llava_scissor.errors import VideoError
from llava_scissor.model import load_model, published

STAGES = {"decode", "preprocess", "vision_tower", "compression", "prefill", "generate", "total"}


@pytest.fixture(scope="module")
def model():
    return load_model("demo", device="cpu")


@pytest.fixture
def video() -> str:
    return str(demo_clips()[0].path)


def test_a_row_for_each_compressor(model, video) -> None:
    compressors = {"all": Identity(), "scissor": Scissor(ScissorConfig(retention_ratio=0.1))}
    report = bench_model(model, compressors, video, ModelBench(num_frames=4, num_repeats=2))
    full, compressed = report["rows"]
    assert (full["name"], compressed["name"]) == ("all", "scissor")
    assert full["tokens"] == {"input": 256, "kept": 256}
    assert compressed["tokens"] == {"input": 256, "kept": 25}
    assert full["num_prompt_tokens"] - compressed["num_prompt_tokens"] == 256 - 25
    for row in report["rows"]:
        assert set(row["stages"]) == STAGES
        assert all(timing["num_repeats"] == 2 for timing in row["stages"].values())
        ratio = row["stages"]["total"]["p50_s"] / full["stages"]["total"]["p50_s"]
        assert row["total_ratio"] == pytest.approx(ratio)
    assert json.loads(json.dumps(report)) == report


def test_compressors_take_turns_and_warm_up_is_not_counted(model, video, monkeypatch) -> None:
    asked, real_ask = [], model_bench.ask

    def ask(*arguments, compressor):
        asked.append(compressor)
        return real_ask(*arguments, compressor=compressor)

    monkeypatch.setattr(model_bench, "ask", ask)
    one, other = Identity(), Identity()
    bench = ModelBench(num_frames=1, max_new_tokens=1, num_repeats=2, num_warm_up=1)
    report = bench_model(model, {"one": one, "other": other}, video, bench)
    assert asked == [one, other] * 4  # warm-up, two timed runs, one for the memory
    assert report["rows"][0]["stages"]["total"]["num_repeats"] == 2
    assert report["rows"][0]["per_token"] is None, "one token has no second one to time"


def test_a_video_that_cannot_be_read_ends_the_bench(model) -> None:
    with pytest.raises(VideoError, match="nowhere"):
        bench_model(model, {"all": Identity()}, "nowhere.mp4", ModelBench())


def test_random_weights_of_a_named_size(monkeypatch, video) -> None:
    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    monkeypatch.setattr(published, "_TOWER", {**published._TOWER, **small, "image_size": 56})
    tiny = {**published._LANGUAGE["0.5b"], **small, "vocab_size": 100}
    monkeypatch.setitem(published._LANGUAGE, "0.5b", tiny)
    cpu = torch.device("cpu")
    built = random_model("0.5b", cpu, torch.float32, seed=3)
    again = random_model("0.5b", cpu, torch.float32, seed=3)
    for (name, one), other in zip(built.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other), name
        assert one.isfinite().all()
        assert not one.requires_grad
    assert built.language_model.lm_head.weight is built.language_model.get_input_embeddings().weight
    report = bench_model(built, {"all": Identity()}, video, ModelBench(num_frames=2, num_repeats=1))
    assert report["rows"][0]["tokens"]["input"] == 2 * 2 * 2
