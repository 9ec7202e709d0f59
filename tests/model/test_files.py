from __future__ import annotations

import pytest
import torch

from llava_scissor.errors import CheckpointError
from llava_scissor.model.files import list_weights, read_json, read_weights
from tests.model.checkpoints import change_json, save_weights, write_json

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16), "c": torch.ones(1)}
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("num_shards", [1, 2])
def test_weights_are_listed_and_read(num_shards, tmp_path):
    save_weights(STATE, tmp_path, num_shards)
    listed = list_weights(tmp_path)
    assert {name: (w.shape, w.dtype) for name, w in listed.items()} == {
        "a": ((2, 3), "F32"),
        "b": ((4,), "BF16"),
        "c": ((1,), "F32"),
    }
    tensors = {weight.name: tensor for weight, tensor in read_weights(listed.values(), torch.device("cpu"))}
    assert all(tensors[name].equal(tensor) for name, tensor in STATE.items())


def test_a_link_to_elsewhere_is_read_as_in_the_cache_of_the_hub(tmp_path):
    save_weights(STATE, tmp_path / "blobs")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/model.safetensors").symlink_to(tmp_path / "blobs/model.safetensors")
    assert set(list_weights(tmp_path / "snapshot")) == {"a", "b", "c"}


@pytest.mark.parametrize(
    "file",
    [
        "../other.safetensors",
        "/etc/other.safetensors",
        "sub/x.safetensors",
        "..",
        "x.bin",
        "a\\b.safetensors",
        3,
        "",
    ],
)
def test_an_index_may_not_leave_the_directory(file, tmp_path):
    save_weights(STATE, tmp_path, num_shards=2)
    change_json(tmp_path / INDEX, weight_map={"a": file})
    with pytest.raises(
        CheckpointError, match="expected the name of a safetensors file in the same directory"
    ):
        list_weights(tmp_path)


@pytest.mark.parametrize("weight_map", [None, {}, ["a"]])
def test_an_index_needs_a_weight_map(weight_map, tmp_path):
    write_json(tmp_path / INDEX, {"weight_map": weight_map})
    with pytest.raises(CheckpointError, match="has no weight_map"):
        list_weights(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    save_weights(STATE, tmp_path, num_shards=2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"model-00002-of-00002\.safetensors is missing, although the index"
    ):
        list_weights(tmp_path)


def test_an_indexed_weight_that_its_file_lacks_is_named(tmp_path):
    save_weights(STATE, tmp_path, num_shards=2)
    change_json(
        tmp_path / INDEX,
        weight_map={"a": "model-00001-of-00002.safetensors", "z": "model-00002-of-00002.safetensors"},
    )
    with pytest.raises(CheckpointError, match="lists 1 weights that their files lack, such as z"):
        list_weights(tmp_path)


def test_a_weight_in_two_files_is_refused(tmp_path):
    save_weights(STATE, tmp_path, num_shards=2)
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(
        (tmp_path / "model-00001-of-00002.safetensors").read_bytes()
    )
    with pytest.raises(CheckpointError, match="a is stored twice"):
        list_weights(tmp_path)


@pytest.mark.parametrize("damage", [b"", b"junk", b"\xff" * 64, "cut", "directory"])
def test_a_damaged_file_is_named(damage, tmp_path):
    save_weights(STATE, tmp_path)
    path = tmp_path / "model.safetensors"
    if damage == "directory":  # a directory is no file, so only an index leads to it
        path.unlink()
        path.mkdir()
        write_json(tmp_path / INDEX, {"weight_map": {"a": "model.safetensors"}})
    else:
        path.write_bytes(path.read_bytes()[:-5] if damage == "cut" else damage)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated or not a safetensors file"):
        list_weights(tmp_path)


def test_a_file_that_is_damaged_after_its_header_was_read_is_named(tmp_path):
    save_weights(STATE, tmp_path)
    listed = list_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated"):
        list(read_weights(listed.values(), torch.device("cpu")))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickles_are_never_read(name, tmp_path):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(CheckpointError, match=rf"pickled weights \({name}\), which can run code"):
        list_weights(tmp_path)


def test_a_directory_without_weights_is_refused(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"
    ):
        list_weights(tmp_path)


class TestReadJson:
    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"has no config\.json: is it a checkpoint directory"):
            read_json(tmp_path / "config.json")

    @pytest.mark.parametrize("content", [b"", b"{", b'{"a": }', b"\xff\xfe", b"[" * 100_000])
    def test_invalid_content_is_refused(self, content, tmp_path):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read as JSON"):
            read_json(tmp_path / "config.json")

    @pytest.mark.parametrize(("content", "kind"), [(b"[]", "list"), (b'"x"', "str"), (b"null", "NoneType")])
    def test_only_objects_are_accepted(self, content, kind, tmp_path):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=f"should hold a JSON object, got a {kind}"):
            read_json(tmp_path / "config.json")
