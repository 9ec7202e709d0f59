"""What `inspect` says, beside what `load_model` does."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava_scissor.errors import CheckpointError
from llava_scissor.model import load_model
from llava_scissor.model.inspection import as_rows, inspect_checkpoint
from tests.model.checkpoints import build_reference, change_json, save_huggingface, save_original, write_json

LAYOUTS = {
    "original": lambda *a: save_original(*a),
    "original, sharded": lambda *a: save_original(*a, num_shards=3),
    "huggingface 2024": lambda *a: save_huggingface(*a, "2024"),
    "huggingface flattened": lambda *a: save_huggingface(*a, "flattened"),
    "huggingface in memory": lambda *a: save_huggingface(*a, "in_memory"),
}


def change_weights(directory, removed=(), **changes):
    """Rewrite model.safetensors; in the names of changes, `__` stands for a dot."""
    state = load_file(directory / "model.safetensors")
    state = {name: tensor for name, tensor in state.items() if name not in removed}
    state |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file(state, directory / "model.safetensors")


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_counts_are_those_of_the_loaded_model(layout, is_tied, tmp_path):
    LAYOUTS[layout](build_reference(is_tied=is_tied), tmp_path)
    report, model = inspect_checkpoint(tmp_path), load_model(tmp_path, device="cpu")
    parameters = dict(model.named_parameters())
    assert report.problems == []
    assert report.kind == "LLaVA-OneVision"
    assert report.layout == model.geometry.layout == layout.split()[0].rstrip(",")
    assert report.is_head_tied == is_tied
    assert report.num_loaded == len(parameters)
    assert report.num_parameters["total"] == sum(p.numel() for p in parameters.values())
    for part in ("vision_tower", "projector", "image_newline", "language_model"):
        count = sum(p.numel() for name, p in parameters.items() if name.startswith(part))
        assert report.num_parameters[part] == count, part
    assert report.memory_bytes["float32"] == sum(p.nbytes for p in parameters.values())
    assert report.memory_bytes["bfloat16"] * 2 == report.memory_bytes["float32"]
    assert report.num_files == (3 if "sharded" in layout else 1)
    assert report.num_bytes == sum(4 * t.numel() for t in stored(tmp_path).values())
    assert report.stored_dtypes == {"F32": len(stored(tmp_path))}
    assert set(report.ignored) == {name for name in stored(tmp_path) if "post_layernorm" in name}
    json.dumps(asdict(report), allow_nan=False)


def stored(directory) -> dict[str, torch.Tensor]:
    return {k: v for file in directory.glob("*.safetensors") for k, v in load_file(file).items()}


def test_the_settings_of_the_checkpoint(checkpoint):
    write_json(checkpoint / "generation_config.json", {"repetition_penalty": 1.05, "eos_token_id": [3, 0]})
    report = inspect_checkpoint(checkpoint)
    assert report.spelling == "original"
    assert report.vision == {
        "image_size_px": 75,
        "patch_size_px": 14,
        "patches_per_side": 5,
        "num_blocks": 3,
        "width": 32,
    }
    assert report.language["context_length"] == 512
    assert report.video == {
        "newline": "one_token",
        "tokens_per_frame": 9,
        "pool_stride": 2,
        "default_num_frames": 32,
    }
    assert report.tokenizer == {"kind": "tokenizer.json", "num_ids": 64}
    assert (report.generation["repetition_penalty"], report.generation["stop_ids"]) == (1.05, [3, 0])
    assert report.cache_bytes_per_token == 2 * 2 * 2 * 2 * 12  # keys and values, bytes, layers, heads, width
    change_json(checkpoint / "config.json", mm_patch_merge_type="flat")
    flat = inspect_checkpoint(checkpoint)
    assert flat.video["newline"] == "flat"
    assert "model.image_newline" in flat.ignored


def test_no_weight_is_read(checkpoint, monkeypatch):
    def refuse(*_):
        raise AssertionError("a weight was read")

    monkeypatch.setattr("llava_scissor.model.checkpoint.read_weights", refuse)
    assert inspect_checkpoint(checkpoint).problems == []


def test_quantised_memory_is_what_the_loaded_model_takes(checkpoint):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    memory_bytes = inspect_checkpoint(checkpoint).memory_bytes
    quantised = load_model(checkpoint, device="cpu", dtype="bfloat16", quantization="8bit")
    assert memory_bytes["8bit"] == sum(p.nbytes for p in quantised.parameters())
    num_linear = sum(p.numel() for p in quantised.parameters() if p.dtype == torch.int8)
    assert memory_bytes["8bit"] - memory_bytes["4bit"] == int(num_linear * (1 - 0.5625))


class TestBroken:
    def test_a_missing_shard_leaves_the_others(self, reference, tmp_path):
        save_original(reference, tmp_path, num_shards=3)
        whole = inspect_checkpoint(tmp_path)
        (tmp_path / "model-00002-of-00003.safetensors").unlink()
        report = inspect_checkpoint(tmp_path)
        assert (report.num_files, report.kind) == (2, "LLaVA-OneVision")
        assert report.num_loaded + len(report.missing) in (whole.num_loaded, whole.num_loaded - 1)  # the head
        assert report.num_parameters["vision_tower"] == whole.num_parameters["vision_tower"]
        assert "model-00002-of-00003.safetensors is missing" in report.problems[0]
        assert report.problems[1] == f"{len(report.missing)} weights are missing"

    def test_every_damaged_file_is_named(self, reference, tmp_path):
        save_original(reference, tmp_path, num_shards=3)
        for i in (1, 3):
            path = tmp_path / f"model-0000{i}-of-00003.safetensors"
            path.write_bytes(path.read_bytes()[:-5])
        problems = inspect_checkpoint(tmp_path).problems
        assert ["00001-of" in problems[0], "00003-of" in problems[1]] == [True, True]
        with pytest.raises(CheckpointError, match=r"(?s)00001-of.*truncated.*00003-of.*truncated"):
            load_model(tmp_path, device="cpu")

    def test_weights_that_do_not_fit_are_listed(self, checkpoint):
        change_weights(
            checkpoint,
            removed=["model.norm.weight"],
            model__extra=torch.zeros(1),
            model__image_newline=torch.zeros(47),
            lm_head__weight=torch.zeros(64, 48, dtype=torch.int8),
        )
        report = inspect_checkpoint(checkpoint)
        assert report.unknown == ["model.extra"]
        assert report.missing == ["language_model.model.norm.weight"]
        assert report.misshapen == ["model.image_newline (47,) for (48,)"]
        assert report.quantised == ["lm_head.weight I8"]
        kinds = ("unknown", "missing", "misshapen", "quantised")
        assert report.problems == [f"1 weights are {kind}" for kind in kinds]

    def test_a_model_of_another_kind_still_has_files(self, checkpoint):
        change_json(checkpoint / "config.json", mm_resampler_type="perceiver")
        report = inspect_checkpoint(checkpoint)
        assert report.kind is None
        assert report.num_bytes > 0
        assert report.tokenizer["num_ids"] == 64
        assert report.problems == ["mm_resampler_type 'perceiver' is not supported: expected null"]

    def test_without_a_tokenizer_the_weights_are_still_compared(self, checkpoint):
        (checkpoint / "tokenizer.json").unlink()
        report = inspect_checkpoint(checkpoint)
        assert report.num_loaded > 0
        (problem,) = report.problems
        assert "no tokenizer" in problem

    def test_an_empty_directory_has_a_problem_for_each_part(self, tmp_path):
        report = inspect_checkpoint(tmp_path)
        words = ("has no config.json", "has no tokenizer", "neither model.safetensors")
        assert all(word in text for word, text in zip(words, report.problems, strict=True))
        assert report.num_files == 0

    def test_pickles_are_named_and_not_read(self, checkpoint):
        (checkpoint / "model.safetensors").unlink()
        (checkpoint / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
        (problem,) = inspect_checkpoint(checkpoint).problems
        assert "pickled weights (pytorch_model.bin)" in problem

    def test_a_path_that_leads_nowhere_is_an_error(self):
        with pytest.raises(CheckpointError, match="neither a directory nor a hub id"):
            inspect_checkpoint("/no/where")

    @pytest.mark.parametrize(
        "change",
        [
            {"hidden_act": "nothing"},
            {"rope_theta": "large"},
            {"mm_vision_tower_config": None},
            {"vocab_size": 32},
            {"eos_token_id": "end"},
        ],
    )
    def test_whatever_is_refused_has_a_problem(self, change, checkpoint):
        change_json(checkpoint / "config.json", **change)
        with pytest.raises(CheckpointError):
            load_model(checkpoint, device="cpu")
        assert inspect_checkpoint(checkpoint).problems


class TestRows:
    def test_for_people(self, checkpoint):
        rows = dict(as_rows(inspect_checkpoint(checkpoint)))
        assert rows["kind"] == "LLaVA-OneVision, original layout"
        assert rows["head"] == "its own weights"
        assert rows["files"].startswith("1 with 0.000 GB: ")
        assert rows["problems"] == "none"
        assert "unknown" not in rows

    def test_a_long_list_is_capped(self, checkpoint):
        change_weights(checkpoint, **{f"extra{i}": torch.zeros(1) for i in range(10, 35)})
        rows = dict(as_rows(inspect_checkpoint(checkpoint)))
        assert rows["unknown"].endswith("extra17 and 17 more")
        assert rows["problems"] == "25 weights are unknown"
