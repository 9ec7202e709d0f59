"""Ways of seeing images that the published checkpoints do not use."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from llava_scissor.config import GenerationConfig, VideoConfig
from llava_scissor.errors import CheckpointError
from llava_scissor.generation import ask
from llava_scissor.generation.encode import preprocess_images
from llava_scissor.model import Images, load_model
from llava_scissor.model.inspection import inspect_checkpoint
from llava_scissor.video import preprocess_frames
from tests.model.checkpoints import save_original

PICTURE = Image.effect_noise((90, 60), 80).convert("RGB")
SHORT = GenerationConfig(max_new_tokens=2)


@pytest.fixture
def load(reference, tmp_path):
    return lambda **config: load_model(save_original(reference, tmp_path, **config), device="cpu")


def visual_tokens(model, *pictures):
    images = Images(*pictures)
    views = preprocess_images(model.geometry, images.read())
    return [
        model.join_views(model.encode_image(view), image.height, image.width)
        for view, image in zip(views, pictures, strict=True)
    ]


def test_a_square_is_the_image_squashed_and_a_newline(load):
    model = load(image_aspect_ratio="square")
    (views,) = preprocess_images(model.geometry, Images(PICTURE).read())
    assert views.equal(preprocess_frames(Images(PICTURE).read()[0][None], 75))
    (tokens,) = visual_tokens(model, PICTURE)
    assert tokens.equal(torch.cat([model.encode_image(views)[0], model.image_newline[None]]))


def test_a_padded_image_is_seen_as_one_of_several(load):
    model = load(image_aspect_ratio="pad")
    (alone,), among = visual_tokens(model, PICTURE), visual_tokens(model, PICTURE, PICTURE)
    assert len(alone) == 25 + 1
    torch.testing.assert_close(alone, among[0])


def test_spatial_is_the_map_without_newlines(load):
    model = load(mm_patch_merge_type="spatial")
    assert model.image_newline is None
    (tokens,) = visual_tokens(model, PICTURE)
    assert len(tokens) == 25 + 2 * 25  # two tiles beside each other show an image of 90 x 60 pixels
    assert [len(tokens) for tokens in visual_tokens(model, PICTURE, PICTURE)] == [25, 25]


def test_flat_is_view_after_view(load):
    model = load(mm_patch_merge_type="flat")
    (views,) = preprocess_images(model.geometry, Images(PICTURE).read())
    (tokens,) = visual_tokens(model, PICTURE)
    assert tokens.equal(model.encode_image(views).flatten(0, 1))


def test_images_have_newlines_where_videos_have_none(load):
    whole, model = load(), load(mm_newline_position="no_token")
    assert visual_tokens(model, PICTURE)[0].equal(visual_tokens(whole, PICTURE)[0])
    tokens = torch.zeros(3, 48)
    assert (len(model.append_newline(tokens)), len(whole.append_newline(tokens))) == (3, 4)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"image_aspect_ratio": "highres"}, "image_aspect_ratio 'highres' is not supported"),
        ({"image_grid_pinpoints": [[100, 75]]}, r"image_grid_pinpoints \[\[100, 75\]\] is not supported"),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_what_is_not_supported_is_refused_when_an_image_is_asked_about(
    config, problem, count, load, tmp_path
):
    model = load(**config)
    with pytest.raises(CheckpointError, match=f"cannot be asked about images: {problem}"):
        ask(model, Images(*[PICTURE] * count), "what is this?", VideoConfig(), SHORT)
    assert ask(model, None, "what is this?", VideoConfig(), SHORT).num_new_tokens
    report = inspect_checkpoint(tmp_path)
    assert report.problems == []
    assert report.images == {"problem": model.geometry.image_problem}
