from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from llava_scissor.errors import InputError
from llava_scissor.video import preprocess_frames

SHAPES = [(3, 96, 128, 3), (2, 200, 111, 3), (1, 48, 48, 3), (2, 17, 300, 3), (1, 1, 1, 3), (1, 384, 384, 3)]


def sample(shape, seed: int = 0) -> torch.Tensor:
    """Draw noise with hard edges, the worst case for resizing."""
    generator = np.random.default_rng(seed)
    pictures = generator.integers(0, 256, shape, dtype=np.uint8)
    pictures[:, shape[1] // 3 :, shape[2] // 2 :] = 255
    return torch.from_numpy(pictures)


def with_pil(frames, size: int, mean, std) -> np.ndarray:
    """Follow the steps of the original processor one picture and one channel at a time."""
    squares = [
        np.asarray(Image.fromarray(frame.numpy()).resize((size, size), Image.BICUBIC)) for frame in frames
    ]
    result = np.empty((len(squares), 3, size, size), np.float32)
    for number, square in enumerate(squares):
        for channel in range(3):
            scaled = square[..., channel].astype(np.float32) / np.float32(255)
            result[number, channel] = (scaled - np.float32(mean[channel])) / np.float32(std[channel])
    return result


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("image_size", [64, 384])
def test_pil_resize_is_equal_to_the_original_steps(shape, image_size):
    frames = sample(shape)
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
    pixels = preprocess_frames(frames, image_size, mean, std, resize="pil")
    np.testing.assert_allclose(pixels.numpy(), with_pil(frames, image_size, mean, std), rtol=0, atol=1e-6)
    exact = preprocess_frames(frames, image_size, resize="pil")
    np.testing.assert_array_equal(exact.numpy(), with_pil(frames, image_size, (0.5,) * 3, (0.5,) * 3))


def picture_like(height: int, width: int) -> torch.Tensor:
    """Draw what a camera sees: shading, soft shapes, some hard edges and a little grain."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = np.stack([np.sin(9 * x + 4 * y), np.cos(7 * y - 3 * x), np.sin(25 * x * y)], -1)
    grain = np.random.default_rng(2).normal(0, 4, (height, width, 3))
    picture = (127 + 90 * waves + grain).clip(0, 255).astype(np.uint8)
    picture[height // 5 : height // 3, width // 4 : width // 2] = (250, 20, 60)
    return torch.from_numpy(picture)[None]


def grey_levels_apart(frames, image_size: int) -> torch.Tensor:
    by_torch = preprocess_frames(frames, image_size)
    by_pil = preprocess_frames(frames, image_size, resize="pil")
    return ((by_torch - by_pil).abs() * 127.5).round()


# Portrait sizes as well: there Pillow 13 does its two passes in another order than torch.
CAMERA_SIZES = [(720, 1280), (1024, 576), (640, 400), (480, 640), (384, 384), (400, 2000)]


@pytest.mark.parametrize("size", CAMERA_SIZES, ids=str)
@pytest.mark.parametrize("image_size", [128, 384])
def test_torch_resize_is_within_one_grey_level(size, image_size):
    assert grey_levels_apart(picture_like(*size), image_size).max() <= 1


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("image_size", [64, 384])
def test_torch_resize_of_noise_and_small_frames(shape, image_size):
    apart = grey_levels_apart(sample(shape, seed=1), image_size)
    assert apart.max() <= 2
    assert (apart > 1).float().mean() < 1e-4


def test_range_type_and_layout():
    frames = torch.zeros(2, 30, 40, 3, dtype=torch.uint8)
    frames[1, ..., 0] = 255
    for resize in ("torch", "pil"):
        pixels = preprocess_frames(frames, 16, resize=resize)
        assert pixels.shape == (2, 3, 16, 16)
        assert pixels.dtype == torch.float32
        assert pixels.is_contiguous()
        assert (pixels[0] == -1).all()
        assert (pixels[1, 0] == 1).all()
        assert (pixels[1, 1:] == -1).all()


def test_frames_are_independent_and_stay_as_they_are():
    frames = sample((4, 50, 70, 3))
    copy = frames.clone()
    together = preprocess_frames(frames, 32)
    assert torch.equal(together, torch.cat([preprocess_frames(frame[None], 32) for frame in frames]))
    assert torch.equal(frames, copy)


def test_views_are_accepted():
    frames = sample((4, 50, 70, 3))
    turned = frames.transpose(1, 2).flip(1)
    for resize in ("torch", "pil"):
        expected = preprocess_frames(turned.contiguous(), 32, resize=resize)
        assert torch.equal(preprocess_frames(turned, 32, resize=resize), expected)


FRAMES = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)


@pytest.mark.usefixtures("unchecked_shapes")
def test_refuses_pixels_that_are_not_uint8():
    with pytest.raises(
        InputError, match=r"Frames are torch\.float32 on cpu, but must be torch\.uint8 on the CPU"
    ):
        preprocess_frames(FRAMES.float(), 16)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 3, 8, 8), (0, 8, 8, 3)], ids=str)
def test_refuses_other_shapes(shape):
    with pytest.raises(InputError, match=r"but must be \(F, H, W, 3\), not empty"):
        preprocess_frames(torch.zeros(shape, dtype=torch.uint8), 16)


def test_refuses_sizes_below_one():
    with pytest.raises(InputError, match="image_size is 0, but must be at least 1 pixel"):
        preprocess_frames(FRAMES, 0)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.5,) * 3), ((0.5,) * 3, (0.5, 0.5, 0.0))])
def test_refuses_statistics_that_do_not_fit(mean, std):
    with pytest.raises(InputError, match="must have 3 values each"):
        preprocess_frames(FRAMES, 16, mean, std)


def test_refuses_an_unknown_resizer():
    with pytest.raises(InputError, match=r"no resize 'opencv'\. Choose one of: torch, pil"):
        preprocess_frames(FRAMES, 16, resize="opencv")
