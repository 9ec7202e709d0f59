from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from llava_scissor.errors import ImageError, InputError
from llava_scissor.model.images import Images, read_image

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]
NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_pixels_of_lossless_files(kind, tmp_path):
    content = encoded(Image.fromarray(NOISE), kind)
    path = tmp_path / "picture"  # the suffix means nothing
    path.write_bytes(content)
    for source in (path, str(path), content, Image.fromarray(NOISE)):
        assert read_image(source).equal(torch.from_numpy(NOISE))


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(kind):
    picture = read_image(encoded(Image.new("RGB", (30, 20), (200, 30, 90)), kind))
    assert (picture.shape, picture.dtype) == ((20, 30, 3), torch.uint8)
    assert (picture.float().mean((0, 1)) - torch.tensor([200.0, 30, 90])).abs().max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation):
    upright = Image.fromarray(NOISE)
    turned = {
        1: lambda i: i,
        2: lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda i: i.rotate(180),
        4: lambda i: i.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda i: i.transpose(Image.Transpose.TRANSPOSE),
        6: lambda i: i.rotate(90, expand=True),
        7: lambda i: i.transpose(Image.Transpose.TRANSVERSE),
        8: lambda i: i.rotate(-90, expand=True),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert read_image(encoded(turned, exif=exif)).equal(torch.from_numpy(NOISE))


def test_greyscale_palette_and_alpha_become_rgb():
    grey = Image.fromarray(NOISE[..., 0])
    assert read_image(encoded(grey)).equal(torch.from_numpy(NOISE[..., :1]).expand(-1, -1, 3))
    bilevel = Image.fromarray(NOISE[..., 0] > 127)
    assert set(read_image(encoded(bilevel)).unique().tolist()) == {0, 255}
    palette = Image.fromarray(NOISE).quantize(64)
    assert read_image(encoded(palette)).equal(torch.from_numpy(np.array(palette.convert("RGB"))))
    alpha = Image.fromarray(np.dstack([NOISE, NOISE[..., 0]]), "RGBA")
    assert read_image(encoded(alpha)).equal(torch.from_numpy(NOISE))
    assert read_image(encoded(alpha.convert("LA"))).shape == (20, 30, 3)


def test_a_palette_with_transparent_colours():
    palette = Image.fromarray(NOISE).quantize(64)
    content = encoded(palette, transparency=bytes(range(64)))
    assert read_image(content).equal(torch.from_numpy(np.array(palette.convert("RGB"))))


def test_sixteen_bit_greyscale_keeps_its_upper_bits():
    values = (NOISE[..., 0].astype(np.uint16) << 8) + 77
    assert read_image(encoded(Image.fromarray(values))).equal(
        torch.from_numpy(NOISE[..., :1]).expand(-1, -1, 3)
    )


def test_pixels_without_a_known_range_are_refused():
    with pytest.raises(ImageError, match="the image is damaged: pixels of mode F have no known range"):
        read_image(Image.fromarray(NOISE[..., 0].astype(np.float32)))


def test_of_an_animation_the_first_picture():
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    content = encoded(first, "GIF", save_all=True, append_images=[second])
    assert (read_image(content) == torch.tensor([255, 0, 0])).all()


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns about what it skips in a TIFF file
@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_is_an_error_or_a_picture_but_nothing_else(kind):
    content = encoded(Image.fromarray(NOISE), kind)
    rng = np.random.default_rng(0)
    num_refused = 0
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 6):
            damaged[place] = rng.integers(256)
        damaged = bytes(damaged[: rng.integers(1, len(content) + 1)])
        try:
            assert read_image(damaged).shape[-1] == 3
        except ImageError:
            num_refused += 1
    assert num_refused > 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "image of 0 bytes in memory is no image that can be read: expected one of JPEG, PNG"),
        (b"not an image at all", "is no image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image that can be read"),
        (
            encoded(Image.fromarray(NOISE))[:400],
            r"image of 400 bytes in memory is damaged: .*; save it again",
        ),
    ],
)
def test_broken_content_is_named(content, message):
    with pytest.raises(ImageError, match=message):
        read_image(content)


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match=r"in memory is too large: .*; shrink it first"):
        read_image(encoded(Image.fromarray(NOISE)))


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(ImageError, match=r"there is no file .*missing\.png"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image("null\0character")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image("/dev/null")


@pytest.mark.parametrize("source", [None, 3, ["a.png"], NOISE])
def test_another_type_is_refused(source, unchecked_shapes):
    with pytest.raises(InputError, match="a path, bytes or a Pillow image, got"):
        read_image(source)


def test_images_are_read_in_order_and_not_compressed_unless_asked():
    images = Images(Image.new("RGB", (2, 3)), Image.new("RGB", (4, 5)))
    assert [tuple(picture.shape) for picture in images.read()] == [(3, 2, 3), (5, 4, 3)]
    assert (len(images), images.compress) == (2, False)
    with pytest.raises(InputError, match="got no image"):
        Images()
