"""Layers on several devices: the answer is that of the model on one."""

from __future__ import annotations

import pytest
import torch

from llava_scissor.config import GenerationConfig
from llava_scissor.errors import InputError
from llava_scissor.model import load_model, placement
from llava_scissor.model.placement import describe_machine, locate, plan_device_map
from tests.model.checkpoints import LANGUAGE, build_reference, save_huggingface, save_original
from tests.writing import generate_ids

QUESTION = "what is this?"
# In float32 vision tower, projector and embedding take 197 kB, a layer of the language model 65 kB. Room for
# the largest part that may have to come and go is set aside, so this has two of four layers on disk.
FOUR_LAYERS = LANGUAGE | {"num_hidden_layers": 4}
LIMIT = 400_000


def frames() -> torch.Tensor:
    return torch.randn(3, 3, 75, 75, generator=torch.Generator().manual_seed(0))


def greedy_ids(model) -> list[int]:
    embeds = model.embed_prompt(model.tokenize(QUESTION), model.encode_video(frames()).flatten(0, 1))
    return generate_ids(model, embeds, GenerationConfig(max_new_tokens=12))


def places(model) -> set[str]:
    return {parameter.device.type for parameter in model.language_model.model.layers.parameters()}


@pytest.mark.parametrize(("layout", "is_tied"), [("original", True), ("huggingface", False)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layers_on_disk_give_the_same_logits_and_answers(dtype, layout, is_tied, tmp_path):
    reference = build_reference(language=FOUR_LAYERS, is_tied=is_tied)
    if layout == "original":
        save_original(reference, tmp_path, num_shards=3, num_hidden_layers=4)
    else:
        save_huggingface(reference, tmp_path, "2024")
    plain = load_model(tmp_path, device="cpu", dtype=dtype)
    limits = {"cpu": LIMIT // (2 if dtype == "bfloat16" else 1)}
    spread = load_model(tmp_path, dtype=dtype, device_map="auto", max_memory=limits)
    assert places(plain) == {"cpu"}
    assert places(spread) == {"cpu", "meta"}
    assert (spread.device, spread.dtype) == (plain.device, plain.dtype)
    assert spread(frames(), QUESTION).equal(plain(frames(), QUESTION))
    assert greedy_ids(spread) == greedy_ids(plain)


def test_what_fits_stays_as_it_is(checkpoint):
    spread = load_model(checkpoint, device_map="auto", max_memory={"cpu": "1GiB"})
    assert places(spread) == {"cpu"}
    assert not hasattr(spread.language_model, "_hf_hook")
    assert spread(frames(), QUESTION).equal(load_model(checkpoint, device="cpu")(frames(), QUESTION))


def test_without_limits_the_free_memory_counts(checkpoint):
    assert places(load_model(checkpoint, device_map="auto")) <= {"cpu", "cuda"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(save_original(build_reference(), tmp_path_factory.mktemp("plan")), device="cpu")


class TestPlan:
    def plan(self, model, *gpus_bytes, cpu=10**9):
        return plan_device_map(model, torch.float32, {**dict(enumerate(gpus_bytes)), "cpu": cpu})

    def layers(self, plan):
        return [locate(f"language_model.model.layers.{i}.mlp.up_proj.weight", plan) for i in range(2)]

    def test_layers_follow_each_other_over_the_gpus_and_the_tower_is_on_the_first(self, model):
        plan = self.plan(model, 300_000, 70_000, 70_000)
        first = {locate(name, plan) for name, _ in model.named_parameters() if "language_model" not in name}
        assert first == {0}
        assert self.layers(plan) == [1, 2]

    def test_what_the_gpus_cannot_hold_is_on_the_cpu_then_on_disk(self, model):
        assert self.layers(self.plan(model, 300_000, cpu=140_000)) == ["cpu", "disk"]

    def test_half_the_bytes_take_half_the_room(self, model):
        limits = {"cpu": 300_000}
        assert placement.DISK in plan_device_map(model, torch.float32, limits).values()
        assert placement.DISK not in plan_device_map(model, torch.bfloat16, limits).values()

    @pytest.mark.parametrize("limit", [99, 200_000, 240_000, 255_000])
    def test_too_little_for_tower_and_embedding_is_refused_with_the_numbers(self, limit, model):
        message = rf"tower, the projector and the embedding \(196,864 bytes\) .* got {{'cpu': {limit}}}"
        with pytest.raises(InputError, match=message):
            plan_device_map(model, torch.float32, {"cpu": limit})

    def test_an_embedding_in_the_memory_of_the_host_is_refused_beside_a_gpu(self, model):
        with pytest.raises(InputError, match="no device has room"):
            self.plan(model, 255_000)

    @pytest.mark.parametrize(("limits", "message"), [({"gpu": 1}, "gpu"), ({"cpu": "many"}, "many")])
    def test_limits_that_are_none_are_refused(self, limits, message, model):
        with pytest.raises(InputError, match=f"max_memory {{.*{message}"):
            plan_device_map(model, torch.float32, limits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device_map": "balanced"}, "device_map 'balanced': expected 'auto' or None"),
        ({"device_map": "auto", "device": "cpu"}, "leave out device 'cpu'"),
        ({"device_map": "auto", "quantization": "4bit"}, "'4bit' needs one device: leave out device_map"),
        ({"max_memory": {"cpu": 1}}, "max_memory is for device_map 'auto' alone"),
    ],
)
def test_arguments_that_exclude_each_other(arguments, message, checkpoint):
    with pytest.raises(InputError, match=message):
        load_model(checkpoint, **arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_layers_in_the_memory_of_the_host_give_the_answers_of_the_gpu(checkpoint):
    plain = load_model(checkpoint, device="cuda", attn_implementation="sdpa")
    spread = load_model(
        checkpoint, attn_implementation="sdpa", device_map="auto", max_memory={0: 300_000, "cpu": 140_000}
    )
    assert set(spread.language_model.hf_device_map.values()) == {0, "cpu", "disk"}
    assert spread.device.type == "cuda"
    assert spread(frames(), QUESTION).equal(plain(frames(), QUESTION))
    assert greedy_ids(spread) == greedy_ids(plain)


def test_the_machine_is_named() -> None:
    machine = describe_machine(torch.device("cpu"))
    assert machine["device"]
    assert machine["threads"] == torch.get_num_threads()
    assert machine["torch"] == torch.__version__
