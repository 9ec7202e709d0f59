"""Images stage by stage against transformers' LlavaOnevision: preprocessing, packing, logits, greedy ids."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaOnevisionProcessor
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

from llava_scissor.config import GenerationConfig
from llava_scissor.generation.encode import preprocess_images
from llava_scissor.model import Images, load_model
from llava_scissor.model.image_tiles import choose_grid
from tests.model.checkpoints import IMAGE_ID, build_reference, save_huggingface, save_original
from tests.model.test_image_tiles import num_tokens
from tests.writing import generate_ids

# Measured in float32: 0.0 in pixels and in packed tokens, 1.4e-6 in logits of up to 3.2.
FP32_TOLERANCE = 1e-5
QUESTION = "what is this?"
TILE, SIDE = 75, 5
PINPOINTS = [[rows * TILE, columns * TILE] for rows in range(1, 7) for columns in range(1, 7)]
SIZES = {  # height, width
    "square": (75, 75),
    "landscape": (48, 64),
    "portrait": (160, 90),
    "wide": (120, 700),
    "tiny": (3, 2),
    "one-pixel": (1, 1),
    "huge": (1000, 1331),
    "line": (1, 900),
}
assert_close = functools.partial(torch.testing.assert_close, rtol=0, atol=FP32_TOLERANCE)
sizes = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


@pytest.fixture(scope="module")
def reference():
    model = build_reference()
    model.config.image_grid_pinpoints = PINPOINTS
    return model


@pytest.fixture(scope="module")
def model(reference, tmp_path_factory):
    directory = save_huggingface(reference, tmp_path_factory.mktemp("images"), "flattened")
    return load_model(directory, device="cpu")


def build_processor(num_image_tokens: int, **options) -> LlavaOnevisionProcessor:
    """Without its constructor, which looks for a video processor that needs torchvision."""
    processor = LlavaOnevisionProcessor.__new__(LlavaOnevisionProcessor)
    processor.image_processor = LlavaOnevisionImageProcessorPil(**options)
    processor.num_image_tokens = num_image_tokens
    processor.image_token = "<image>"
    processor.vision_aspect_ratio = "anyres_max_9"
    processor.vision_feature_select_strategy = "full"
    return processor


@pytest.fixture(scope="module")
def processor():
    return build_processor(
        SIDE**2,
        size={"height": TILE, "width": TILE},
        image_grid_pinpoints=PINPOINTS,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def processed(processor, *pictures):
    """What transformers makes of one image, or of several in one prompt."""
    inputs = processor.image_processor([list(pictures)], return_tensors="pt")
    return {"pixel_values": inputs["pixel_values"], "image_sizes": inputs["image_sizes"],
            "batch_num_images": torch.tensor([len(pictures)])}  # fmt: skip


@sizes
def test_the_views_of_one_image(size, processor, model):
    expected = processed(processor, picture(size))["pixel_values"][0]
    (views,) = preprocess_images(model.geometry, Images(picture(size)).read())
    assert_close(views, expected.to(torch.float32))


def test_the_views_of_several_images(processor, model):
    pictures = [picture(size, seed) for seed, size in enumerate(SIZES.values())]
    expected = processed(processor, *pictures)["pixel_values"][:, 0]
    views = preprocess_images(model.geometry, Images(*pictures).read())
    assert_close(torch.cat(views), expected.to(torch.float32))


@sizes
def test_the_packed_tokens_of_one_image(size, reference, model):
    rows, columns = choose_grid(*size, TILE, model.geometry.image_grids)
    views = torch.randn(1 + rows * columns, 3, TILE, TILE, generator=torch.Generator().manual_seed(0))
    expected = reference.model.get_image_features(views[None], torch.tensor([size])).pooler_output
    assert_close(model.join_views(model.encode_image(views), *size), expected[0])


def prompt_of(model, processor, pictures):
    """Embeddings of the prompt here, and the ids with one placeholder for each visual token there."""
    images = Images(*pictures)
    views = preprocess_images(model.geometry, images.read())
    visuals = [
        model.join_views(model.encode_image(view), image.height, image.width)
        for view, image in zip(views, pictures, strict=True)
    ]
    text_ids = model.tokenize(QUESTION, len(visuals))
    inputs = processed(processor, *pictures)
    ids = list(text_ids[0])
    for i, text in enumerate(text_ids[1:]):
        ids += [IMAGE_ID] * processor.replace_image_token(inputs, i).count(processor.image_token) + text
    return model.embed(text_ids, visuals), {"input_ids": torch.tensor([ids]), **inputs}


CASES = {
    **{name: [size] for name, size in SIZES.items()},
    "two": [(48, 64), (90, 30)],
    "three": [(75, 75)] * 3,
}
CASES.pop("huge")  # more tokens than the tiny model has positions for


@pytest.mark.parametrize("case", CASES)
def test_logits_and_greedy_ids(case, reference, model, processor):
    embeds, inputs = prompt_of(model, processor, [picture(size, i) for i, size in enumerate(CASES[case])])
    assert len(embeds) == inputs["input_ids"].shape[1]
    logits = model.language_model(inputs_embeds=embeds[None], use_cache=False).logits[0]
    assert_close(logits, reference(**inputs).logits[0])
    expected = reference.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=3)
    ids = generate_ids(model, embeds, GenerationConfig(max_new_tokens=12))
    assert ids == expected[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_has_at_most_twice_the_error_of_plain_torch(dtype, reference, processor, tmp_path):
    model = load_model(save_huggingface(reference, tmp_path, "flattened"), device="cpu", dtype=dtype)
    plain = copy.deepcopy(reference).to(getattr(torch, dtype))
    embeds, inputs = prompt_of(model, processor, [picture(SIZES["portrait"])])
    assert embeds.dtype == plain.dtype
    exact = reference(**inputs).logits[0]
    found = model.language_model(inputs_embeds=embeds[None], use_cache=False).logits[0]
    inputs["pixel_values"] = inputs["pixel_values"].to(plain.dtype)
    error, plain_error = ((a.float() - exact).norm() for a in (found, plain(**inputs).logits[0]))
    assert 0 < error <= 2 * plain_error


def test_layers_on_disk_see_the_same_image(reference, model, processor, tmp_path):
    directory = save_huggingface(reference, tmp_path, "flattened")
    spread = load_model(directory, device_map="auto", max_memory={"cpu": 300_000})
    assert {weight.device.type for weight in spread.language_model.parameters()} == {"cpu", "meta"}
    pictures = [picture(SIZES["wide"])]
    embeds = prompt_of(spread, processor, pictures)[0]
    assert embeds.equal(prompt_of(model, processor, pictures)[0])
    config = GenerationConfig(max_new_tokens=6)
    assert generate_ids(spread, embeds, config) == generate_ids(model, embeds, config)


# Fewer grids, not all of both shapes, and a map is shrunk early.
OTHER_PINPOINTS = [[TILE, 2 * TILE], [3 * TILE, TILE], [2 * TILE, 4 * TILE], [TILE, 6 * TILE]]
OTHER_IMAGES = {"image_grid_pinpoints": OTHER_PINPOINTS, "vision_aspect_ratio": "anyres_max_3"}


@pytest.fixture(scope="module")
def other_reference():
    model = build_reference()
    model.config.update(OTHER_IMAGES)
    return model


@pytest.fixture(scope="module", params=["huggingface", "original"])
def other_model(request, other_reference, tmp_path_factory):
    directory = tmp_path_factory.mktemp("grids")
    if request.param == "huggingface":
        save_huggingface(other_reference, directory, "flattened")
    else:
        grids = [[width, height] for height, width in OTHER_PINPOINTS]
        save_original(
            other_reference, directory, image_aspect_ratio="anyres_max_3", image_grid_pinpoints=grids
        )
    return load_model(directory, device="cpu")


@sizes
def test_the_grids_of_the_checkpoint(size, other_reference, other_model):
    options = {"size": {"height": TILE, "width": TILE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    processor = LlavaOnevisionImageProcessorPil(**options, image_grid_pinpoints=OTHER_PINPOINTS)
    inputs = processor(picture(size), return_tensors="pt")
    (views,) = preprocess_images(other_model.geometry, Images(picture(size)).read())
    assert_close(views, inputs["pixel_values"][0].to(torch.float32))
    expected = other_reference.model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    tokens = other_model.join_views(other_model.encode_image(views), *size)
    assert_close(tokens, expected.pooler_output[0])


def test_the_real_tower_counts_as_the_processor_does():
    processor = build_processor(729)
    rng = np.random.default_rng(0)
    shapes = [*rng.integers(1, 3000, (200, 2)).tolist(), *rng.integers(1, 60, (50, 2)).tolist()]
    expected = [processor._get_number_of_features(height, width, 384, 384) for height, width in shapes]
    assert [num_tokens(height, width) for height, width in shapes] == expected
