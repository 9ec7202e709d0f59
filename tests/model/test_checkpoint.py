from __future__ import annotations

import inspect
import json
import re

import pytest
import torch
from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from llava_scissor.compression import Identity
from llava_scissor.config import ModelConfig
from llava_scissor.errors import CheckpointError, InputError, MissingDependencyError
from llava_scissor.model import checkpoint as checkpoint_module
from llava_scissor.model import layouts, load_model, load_model_from, placement
from tests.model.checkpoints import (
    CONTROL,
    SMALL_TOWER,
    VOCABULARY_SIZE,
    build_reference,
    change_json,
    save_huggingface,
    save_original,
    write_json,
)

PREFIX = "model.vision_tower.vision_tower.vision_model."


def change_weights(directory, removed=(), **changes):
    """Rewrite model.safetensors; in the names of changes, `__` stands for a dot."""
    path = directory / "model.safetensors"
    state = load_file(path)
    for name in removed:
        del state[name]
    save_file(state | {name.replace("__", "."): tensor for name, tensor in changes.items()}, path)


class TestLoadingFromSettings:
    def test_every_field_reaches_the_loader(self, checkpoint, monkeypatch):
        calls, compressor, loaded = [], Identity(), load_model(checkpoint, device="cpu")
        monkeypatch.setattr(checkpoint_module, "load_model", lambda **given: calls.append(given) or loaded)
        one_device = {"path": "p", "device": "cuda:1", "dtype": "float16", "attn_implementation": "eager"}
        for fields in ({**one_device, "quantization": "4bit"}, {"device_map": "auto"}):
            load_model_from(ModelConfig(**fields), compressor, {"cpu": 1})
            left_open = {name: field.default for name, field in ModelConfig.model_fields.items()}
            expected = {**left_open, **fields, "compressor": compressor, "max_memory": {"cpu": 1}}
            assert calls.pop() == expected

    def test_every_field_is_one_that_the_loader_takes(self):
        assert ModelConfig.model_fields.keys() <= inspect.signature(load_model).parameters.keys()

    def test_it_loads(self, checkpoint):
        model = load_model_from(ModelConfig(path=str(checkpoint), device="cpu", dtype="bfloat16"))
        assert model.dtype == torch.bfloat16


class TestLoading:
    def test_a_model_is_complete_and_frozen(self, checkpoint, capsys):
        compressor = Identity()
        model = load_model(checkpoint, device="cpu", compressor=compressor)
        assert model.compressor is compressor
        assert model.geometry.layout == "original"
        assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not model.training
        assert capsys.readouterr().out == ""

    def test_the_path_may_be_text(self, checkpoint):
        assert load_model(str(checkpoint), device="cpu").num_token_ids == VOCABULARY_SIZE

    def test_demo_is_the_model_in_the_package(self, reference, tmp_path, monkeypatch):
        save_original(reference, tmp_path / "model")
        (tmp_path / "demo").mkdir()
        (tmp_path / "model").rename(tmp_path / "demo/model")
        monkeypatch.setattr(checkpoint_module, "files", {"llava_scissor": tmp_path}.get)
        assert load_model("demo", device="cpu").geometry.image_size == 75

    @pytest.mark.parametrize("says_tied", [True, False])
    def test_an_absent_head_is_the_embedding_whatever_the_config_says(self, says_tied, tmp_path):
        save_original(build_reference(is_tied=True), tmp_path, tie_word_embeddings=says_tied)
        language_model = load_model(tmp_path, device="cpu").language_model
        assert language_model.lm_head.weight is language_model.get_input_embeddings().weight
        assert language_model.config.tie_word_embeddings

    def test_a_stored_head_is_used_whatever_the_config_says(self, reference, tmp_path):
        save_original(reference, tmp_path, tie_word_embeddings=True)
        language_model = load_model(tmp_path, device="cpu").language_model
        assert language_model.lm_head.weight.equal(reference.lm_head.weight)
        assert not language_model.lm_head.weight.equal(language_model.get_input_embeddings().weight)

    @pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
    def test_rotary_tables_stay_in_float32_and_have_the_base_of_the_config(self, dtype, checkpoint):
        rotary = load_model(checkpoint, device="cpu", dtype=dtype).language_model.model.rotary_emb
        expected = 1e6 ** (-torch.arange(0, 12, 2) / 12)
        assert rotary.inv_freq.dtype == torch.float32
        torch.testing.assert_close(rotary.inv_freq, expected)
        assert rotary.original_inv_freq.equal(rotary.inv_freq)

    @pytest.mark.parametrize(
        ("stored", "asked", "loaded"),
        [
            (torch.float32, "auto", torch.float32),
            (torch.bfloat16, "auto", torch.bfloat16),
            (torch.float16, "auto", torch.float32),
            (torch.float16, "float16", torch.float16),
            (torch.float16, "bfloat16", torch.bfloat16),
            (torch.bfloat16, "float32", torch.float32),
        ],
    )
    def test_dtypes_are_kept_or_cast(self, stored, asked, loaded, checkpoint):
        state = {name: t.to(stored) for name, t in load_file(checkpoint / "model.safetensors").items()}
        save_file(state, checkpoint / "model.safetensors")
        model = load_model(checkpoint, device="cpu", dtype=asked)
        assert {parameter.dtype for parameter in model.parameters()} == {loaded}
        assert model.image_newline.equal(state["model.image_newline"].to(loaded))

    def test_tables_and_parts_that_are_not_used_may_be_stored(self, checkpoint):
        change_weights(
            checkpoint,
            **{
                f"{PREFIX}embeddings.position_ids": torch.arange(25)[None],
                f"{PREFIX}head.probe": torch.zeros(3),
                f"{PREFIX}post_layernorm.weight": torch.full((32,), torch.nan),
                "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(6),
                "model.vision_tower.vision_tower.text_model.final_layer_norm.weight": torch.zeros(3),
            },
        )
        model = load_model(checkpoint, device="cpu")
        assert model.encode_video(torch.zeros(1, 3, 75, 75)).isfinite().all()

    def test_a_flat_checkpoint_may_store_a_newline_or_not(self, checkpoint):
        change_json(checkpoint / "config.json", mm_patch_merge_type="flat")
        assert load_model(checkpoint, device="cpu").image_newline is None
        change_weights(checkpoint, removed=["model.image_newline"])
        assert load_model(checkpoint, device="cpu").image_newline is None

    def test_only_the_block_that_upstream_deletes_may_be_left_over(self, checkpoint, monkeypatch):
        monkeypatch.setitem(layouts.TOWERS, "siglip-tiny", SMALL_TOWER)
        change_json(checkpoint / "config.json", mm_vision_tower_config=None)
        change_weights(checkpoint, **{f"{PREFIX}encoder.layers.3.layer_norm1.bias": torch.zeros(32)})
        assert len(load_model(checkpoint, device="cpu").vision_tower.encoder.layers) == 3
        change_weights(checkpoint, **{f"{PREFIX}encoder.layers.4.layer_norm1.bias": torch.zeros(32)})
        with pytest.raises(CheckpointError, match=r"1 unknown: .*layers\.4\.layer_norm1\.bias"):
            load_model(checkpoint, device="cpu")


class TestWeightsThatDoNotFit:
    def test_missing_unknown_and_misshapen_ones_are_listed_together(self, checkpoint):
        change_weights(
            checkpoint,
            removed=["model.norm.weight", f"{PREFIX}encoder.layers.2.mlp.fc1.bias"],
            model__extra=torch.zeros(1),
            model__image_newline=torch.zeros(47),
            lm_head__weight=torch.zeros(VOCABULARY_SIZE, 48, dtype=torch.int8),
        )
        with pytest.raises(CheckpointError) as caught:
            load_model(checkpoint, device="cpu")
        assert str(caught.value).splitlines() == [
            "the weights are not those that config.json describes:",
            "  1 unknown: model.extra",
            "  2 missing: vision_tower.encoder.layers.2.mlp.fc1.bias, language_model.model.norm.weight",
            "  1 misshapen: model.image_newline (47,) for (48,)",
            "  1 quantised: lm_head.weight I8",
        ]

    def test_a_long_list_is_capped(self, checkpoint):
        change_weights(checkpoint, **{f"extra{i}": torch.zeros(1) for i in range(10, 35)})
        with pytest.raises(CheckpointError, match=r"25 unknown: extra10, .*, extra17, \.\.\.$"):
            load_model(checkpoint, device="cpu")

    def test_a_newline_that_the_layout_uses_may_not_be_absent(self, checkpoint):
        change_weights(checkpoint, removed=["model.image_newline"])
        with pytest.raises(CheckpointError, match="1 missing: image_newline"):
            load_model(checkpoint, device="cpu")

    def test_an_embedding_may_not_be_absent(self, checkpoint):
        change_weights(checkpoint, removed=["model.embed_tokens.weight"])
        with pytest.raises(CheckpointError, match=r"1 missing: language_model\.model\.embed_tokens\.weight"):
            load_model(checkpoint, device="cpu")

    def test_the_other_layouts_names_are_unknown(self, reference, tmp_path):
        save_huggingface(reference, tmp_path, "2024")
        save_original(reference, tmp_path / "other")
        (tmp_path / "config.json").write_bytes((tmp_path / "other/config.json").read_bytes())
        with pytest.raises(CheckpointError, match=r"(?s)85 unknown: image_newline, .* 82 missing: "):
            load_model(tmp_path, device="cpu")

    def test_two_names_for_one_weight_are_refused(self, reference, tmp_path):
        save_huggingface(reference, tmp_path, "2024")
        change_weights(tmp_path, model__image_newline=torch.zeros(48))
        with pytest.raises(CheckpointError, match="both stand for image_newline: remove one"):
            load_model(tmp_path, device="cpu")

    def test_more_token_ids_than_embeddings_are_refused(self, checkpoint):
        vocabulary = json.loads((checkpoint / "tokenizer.json").read_text())
        vocabulary["model"]["vocab"]["late"] = VOCABULARY_SIZE
        write_json(checkpoint / "tokenizer.json", vocabulary)
        with pytest.raises(CheckpointError, match="tokenizer has 65 ids, the model only 64 embeddings"):
            load_model(checkpoint, device="cpu")

    @pytest.mark.parametrize(
        "changes",
        [{"hidden_act": "nothing"}, {"rope_scaling": {"rope_type": "yarn"}}, {"rope_theta": "large"}],
    )
    def test_a_model_that_cannot_be_built_is_refused(self, changes, checkpoint):
        change_json(checkpoint / "config.json", **changes)
        with pytest.raises(CheckpointError, match=r"cannot be built|is not valid"):
            load_model(checkpoint, device="cpu")


class TestTokenizer:
    def test_vocabulary_and_merges_do_without_tokenizer_json(self, checkpoint):
        vocabulary = {letter: i for i, letter in enumerate(["W", "h", "a", "t", "i", "s", "Ġ", "Ċ", "Wh"])}
        added = {token: len(vocabulary) + i for i, token in enumerate(CONTROL)}
        (checkpoint / "tokenizer.json").unlink()
        write_json(checkpoint / "vocab.json", vocabulary)
        (checkpoint / "merges.txt").write_text("#version: 0.2\nW h\n", encoding="utf-8")
        write_json(
            checkpoint / "tokenizer_config.json",
            {
                "added_tokens_decoder": {str(i): {"content": t, "special": True} for t, i in added.items()},
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
                "tokenizer_class": "Qwen2Tokenizer",
            },
        )
        tokenizer = load_model(checkpoint, device="cpu").tokenizer
        ids = tokenizer("<|im_start|>What is\n").input_ids
        assert ids[:2] == [added["<|im_start|>"], vocabulary["Wh"]]
        assert tokenizer.decode(ids) == "<|im_start|>What is\n"

    def test_a_directory_without_one_is_refused(self, checkpoint):
        (checkpoint / "tokenizer.json").unlink()
        with pytest.raises(CheckpointError, match=r"no tokenizer: expected tokenizer\.json, or vocab\.json"):
            load_model(checkpoint, device="cpu")

    def test_one_without_turns_is_refused(self, checkpoint):
        content = (checkpoint / "tokenizer.json").read_text(encoding="utf-8")
        (checkpoint / "tokenizer.json").write_text(content.replace("im_end", "other"), encoding="utf-8")
        settings = (checkpoint / "tokenizer_config.json").read_text(encoding="utf-8")
        (checkpoint / "tokenizer_config.json").write_text(
            settings.replace("im_end", "other"), encoding="utf-8"
        )
        with pytest.raises(CheckpointError, match=r"lacks the ChatML tokens <\|im_start\|> and <\|im_end\|>"):
            load_model(checkpoint, device="cpu")

    @pytest.mark.parametrize(
        "content", ["", "{", "[]", '{"version": "1.0"}', '{"added_tokens": [], "model": {}}']
    )
    def test_a_damaged_one_is_refused(self, content, checkpoint):
        (checkpoint / "tokenizer.json").write_text(content, encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"the tokenizer in .* cannot be read"):
            load_model(checkpoint, device="cpu")


class TestPlaces:
    def test_a_file_is_no_checkpoint(self, checkpoint):
        with pytest.raises(CheckpointError, match=r"config\.json is a file: give the directory"):
            load_model(checkpoint / "config.json")

    @pytest.mark.parametrize("path", ["nowhere", "./nowhere/here", "/no/where", "a/b/c", ""])
    def test_what_is_neither_a_directory_nor_a_hub_id_is_refused(self, path, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(CheckpointError, match=r"neither a directory nor a hub id|has no config\.json"):
            load_model(path)

    def test_an_empty_directory_is_no_checkpoint(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"has no config\.json: is it a checkpoint directory"):
            load_model(tmp_path)

    def test_a_hub_id_is_downloaded_without_pickles(self, checkpoint, monkeypatch):
        asked = {}

        def download(name, allow_patterns):
            asked[name] = allow_patterns
            return str(checkpoint)

        monkeypatch.setattr(checkpoint_module, "snapshot_download", download)
        assert load_model("owner/model-7b.v1", device="cpu").geometry.layout == "original"
        assert asked == {"owner/model-7b.v1": ["*.json", "*.safetensors", "merges.txt"]}

    @pytest.mark.parametrize(
        "error",
        [OSError("disk full"), HFValidationError("bad id"), HTTPError("500"), LocalEntryNotFoundError("off")],
    )
    def test_a_download_that_fails_is_a_checkpoint_error(self, error, monkeypatch):
        def download(name, allow_patterns):
            raise error

        monkeypatch.setattr(checkpoint_module, "snapshot_download", download)
        with pytest.raises(CheckpointError, match=f"owner/name .* could not be had from .* hub: {error}"):
            load_model("owner/name")


class TestPlacement:
    @pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
    def test_a_device_that_is_not_there_is_refused(self, device, checkpoint):
        with pytest.raises(InputError, match=f"device '{device}' cannot be used here"):
            load_model(checkpoint, device=device)

    @pytest.mark.parametrize("dtype", ["int8", "fp16", "float64"])
    def test_other_dtypes_are_refused(self, dtype, checkpoint):
        with pytest.raises(InputError, match=f"dtype '{dtype}': expected auto, float32, bfloat16 or float16"):
            load_model(checkpoint, device="cpu", dtype=dtype)

    def test_other_attention_is_refused(self, checkpoint):
        with pytest.raises(InputError, match="attention 'fast': expected auto, sdpa, eager"):
            load_model(checkpoint, device="cpu", attn_implementation="fast")

    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_attention_reaches_both_networks(self, attention, checkpoint):
        model = load_model(checkpoint, device="cpu", attn_implementation=attention)
        configs = (model.vision_tower.config, model.language_model.config)
        assert [config._attn_implementation for config in configs] == [attention] * 2

    @pytest.mark.parametrize(
        ("is_installed", "device", "dtype", "chosen"),
        [
            (True, "cuda", torch.bfloat16, "flash_attention_2"),
            (True, "cuda", torch.float32, "sdpa"),
            (True, "cpu", torch.bfloat16, "sdpa"),
            (False, "cuda", torch.bfloat16, "sdpa"),
        ],
    )
    def test_auto_is_flash_attention_where_it_works(self, is_installed, device, dtype, chosen, monkeypatch):
        monkeypatch.setattr(placement, "is_installed", lambda package: is_installed)
        assert placement.choose_attention("auto", torch.device(device), dtype) == chosen

    def test_flash_attention_without_its_package_says_how_to_install_it(self, checkpoint, monkeypatch):
        monkeypatch.setattr(placement, "is_installed", lambda package: False)
        with pytest.raises(MissingDependencyError, match=re.escape("pip install 'llava-scissor[flash]'")):
            load_model(checkpoint, device="cpu", attn_implementation="flash_attention_2")

    def test_flash_attention_on_a_cpu_is_refused(self, checkpoint, monkeypatch):
        monkeypatch.setattr(placement, "is_installed", lambda package: True)
        with pytest.raises(InputError, match="flash_attention_2 needs CUDA and 16-bit weights, got cpu"):
            load_model(checkpoint, device="cpu", attn_implementation="flash_attention_2")
