"""From a video or images to the visual blocks of a prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from llava_scissor.compression import CompressionResult, Compressor
from llava_scissor.compression.protocol import Needs, TowerState, needs_of
from llava_scissor.config import VideoConfig
from llava_scissor.errors import CheckpointError, InputError
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import Geometry, Images, OneVision
from llava_scissor.model.image_tiles import choose_grid, cut_tiles, pad_to_square
from llava_scissor.model.splice import prompt_positions
from llava_scissor.video import VideoClip, preprocess_frames, read_video


@dataclass(frozen=True, eq=False)
class EncodedMedia:
    """What the language model sees of a video or of images.

    Attributes:
        visuals: visual blocks, newlines included: one for a video, one for each image, none for text only.
        clip: the frames of the video that were looked at.
        image_sizes: height and width of each image in pixels.
        compressions: which visual tokens were kept: of the video, or of each image if that was asked for.
        block_positions: positions of the rows of each block and of what follows it, from
            `OneVision.block_positions`.
    """

    visuals: tuple[Float[Tensor, "_ d"], ...] = ()
    clip: VideoClip | None = None
    image_sizes: tuple[tuple[int, int], ...] = ()
    compressions: tuple[CompressionResult, ...] = ()
    block_positions: tuple[Int64[Tensor, " _"], ...] = ()

    def positions(self, text_ids: list[list[int]]) -> Int64[Tensor, " l"]:
        """Return the position of each row of the prompt that these blocks and texts make."""
        return prompt_positions([len(ids) for ids in text_ids], self.block_positions)


Media = str | Path | bytes | VideoClip | Images | EncodedMedia | None
"""A video as path, content or clip; images; what was encoded before; or nothing."""


def count_visuals(media: Media) -> int:
    """Return how many placeholders the prompt needs."""
    if isinstance(media, EncodedMedia):
        return len(media.visuals)
    return 0 if media is None else len(media) if isinstance(media, Images) else 1


def encode_media(
    model: OneVision,
    media: Media,
    config: VideoConfig,
    watch: Stopwatch,
    compressor: Compressor | None = None,
) -> EncodedMedia:
    """Turn a video or images into visual blocks.

    Args:
        model: the model.
        media: a video, images, or None. `EncodedMedia` is returned as it is.
        config: how to take frames of a video.
        watch: gets the laps `decode`, `preprocess`, `vision_tower` and `compression`.
        compressor: what reduces the visual tokens; None for that of the model.

    Raises:
        InputError: `media` is of another type.
        ImageError: an image cannot be read.
        CheckpointError: the checkpoint shows images in a way that is not supported.
        VideoError: the video cannot be read.
        MissingDependencyError: the decoder is not installed.
    """
    compressor = model.compressor if compressor is None else compressor
    if media is None or isinstance(media, EncodedMedia):
        return media or EncodedMedia()
    if isinstance(media, Images):
        return _encode_images(model, media, watch, compressor)
    if isinstance(media, (str, Path, bytes, VideoClip)):
        return _encode_video(model, media, config, watch, compressor)
    raise InputError(
        "expected a video (path, bytes or VideoClip), Images(...) or None for text only, "
        f"got {type(media).__name__}"
    )


def encode_tokens(
    model: OneVision,
    tokens: Float[Tensor, "f p d"],
    tower: TowerState,
    compressor: Compressor | None = None,
) -> EncodedMedia:
    """Turn the visual tokens of a video into a visual block.

    Args:
        model: the model that made the tokens.
        tokens: from `OneVision.encode_video_with` (F, P, D).
        tower: what that returned beside them.
        compressor: what reduces the tokens; None for that of the model.
    """
    compression = model.compress(tokens, tower, compressor)  # .tokens (K, D)
    visual = model.append_newline(compression.tokens)  # (K + 1, D)
    positions = model.block_positions(compression)
    return EncodedMedia((visual,), compressions=(compression,), block_positions=(positions,))


def _encode_video(
    model: OneVision,
    video: str | Path | bytes | VideoClip,
    config: VideoConfig,
    watch: Stopwatch,
    compressor: Compressor,
) -> EncodedMedia:
    geometry = model.geometry
    clip = _read(video, config, geometry.default_num_frames)
    watch.lap("decode")
    pixel_values = preprocess_frames(
        clip.frames, geometry.image_size, geometry.image_mean, geometry.image_std, config.resize
    )  # (F, 3, S, S)
    watch.lap("preprocess")
    tokens, tower = model.encode_video_with(pixel_values, needs_of(compressor))  # (F, P, D)
    watch.lap("vision_tower")
    encoded = encode_tokens(model, tokens, tower, compressor)
    watch.lap("compression")
    return replace(encoded, clip=clip)


def _encode_images(
    model: OneVision, images: Images, watch: Stopwatch, compressor: Compressor
) -> EncodedMedia:
    pictures = images.read()  # each (H, W, 3)
    sizes = tuple((picture.shape[0], picture.shape[1]) for picture in pictures)
    watch.lap("decode")
    views = preprocess_images(model.geometry, pictures)  # each (T, 3, S, S)
    watch.lap("preprocess")
    needs = needs_of(compressor) if images.compress else Needs()
    encoded = [model.encode_image_with(pixel_values, needs) for pixel_values in views]
    watch.lap("vision_tower")
    if not images.compress:
        patches = [patches for patches, _ in encoded]  # each (T, s*s, D)
        visuals = [model.join_views(p, *size) for p, size in zip(patches, sizes, strict=True)]
        positions = tuple(torch.arange(len(visual) + 1) for visual in visuals)
        return EncodedMedia(tuple(visuals), image_sizes=sizes, block_positions=positions)
    compressions = tuple(model.compress(*one, compressor) for one in encoded)  # a view counts as a frame
    watch.lap("compression")
    visuals = tuple(model.append_newline(compression.tokens) for compression in compressions)
    positions = tuple(model.block_positions(compression) for compression in compressions)
    return EncodedMedia(visuals, None, sizes, compressions, positions)


def preprocess_images(
    geometry: Geometry, pictures: list[UInt8[Tensor, "_ _ 3"]]
) -> list[Float[Tensor, "_ 3 s s"]]:
    """Return the normalised views of each image.

    A single image is shown as the checkpoint says. Several have one view each.

    Raises:
        CheckpointError: the checkpoint shows images in a way that is not supported.
    """
    if geometry.image_problem:
        raise CheckpointError(f"this checkpoint cannot be asked about images: {geometry.image_problem}")
    size, mean, std = geometry.image_size, geometry.image_mean, geometry.image_std
    if len(pictures) > 1 or geometry.image_views == "pad":
        views = [pad_to_square(picture, mean)[None] for picture in pictures]
    elif geometry.image_views == "square":
        views = [picture[None] for picture in pictures]
    else:
        grids = [choose_grid(p.shape[0], p.shape[1], size, geometry.image_grids) for p in pictures]
        views = [cut_tiles(p, grid, size) for p, grid in zip(pictures, grids, strict=True)]
    return [preprocess_frames(view, size, mean, std) for view in views]


def _read(video: str | Path | bytes | VideoClip, config: VideoConfig, default_num_frames: int) -> VideoClip:
    if isinstance(video, VideoClip):
        return video
    num_frames = default_num_frames if config.num_frames is None else config.num_frames
    return read_video(video, num_frames, config.decoder)
