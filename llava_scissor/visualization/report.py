"""A folder with pictures and numbers that show what a compressor did with one video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from llava_scissor.compression import CompressionResult
from llava_scissor.video import VideoClip
from llava_scissor.video.writer import write_video
from llava_scissor.visualization.maps import TokenMap, paint_components, paint_kept

_BANDS = {
    "frame": "what the camera saw",
    "components": "one colour, in all frames, is one token; untinted places are tokens of their own",
    "kept": "every place in the mean colour of all that was merged into its token",
}
_LONGEST_SIDE_PX = 256
_MOST_COLUMNS = 8
_GAP, _LINE = 6, 22
_FONT_SIZE = 15
_BACKGROUND, _INK = (255, 255, 255), (30, 30, 30)
_SECONDS_EACH = 0.5


def write_report(clip: VideoClip, result: CompressionResult, directory: Path) -> dict[str, Any]:
    """Write sheet.png, components.mp4, sizes.png and stats.json.

    Args:
        clip: the frames that were compressed.
        result: what the compressor said about them.
        directory: made if it is not there; files of these names are replaced.

    Returns:
        What stats.json holds.

    Raises:
        InputError: the tokens are not a square grid in each frame.
    """
    directory.mkdir(parents=True, exist_ok=True)
    frames = _shrink(clip.frames.numpy())
    token_map = TokenMap.of(result, len(frames))
    bands = [frames, paint_components(frames, token_map), paint_kept(frames, token_map)]
    _sheet(bands, clip, result).save(directory / "sheet.png")
    write_video(np.concatenate(bands, axis=2), directory / "components.mp4", 1 / _SECONDS_EACH)
    _histogram(token_map.sizes).save(directory / "sizes.png")
    stats = describe(clip, result, token_map)
    (directory / "stats.json").write_text(json.dumps(stats, indent=2) + "\n", encoding="utf-8")
    return stats


def describe(clip: VideoClip, result: CompressionResult, token_map: TokenMap) -> dict[str, Any]:
    """Return the numbers behind the pictures."""
    sizes = token_map.sizes
    first, last = result.frame_span.cpu().numpy().T
    present = [np.unique(frame[frame >= 0]) for frame in token_map.component]
    return {
        "source": clip.source,
        "timestamps_s": list(clip.timestamps_s),
        "tokens": {"input": result.num_input, "spatial": result.num_spatial, "kept": result.num_kept},
        "tau": result.tau,
        "sizes": {
            "largest": int(sizes.max()),
            "median": float(np.median(sizes)),
            "of_one_token": int((sizes == 1).sum()),
        },
        "in_one_frame": int((first == last).sum()),
        "in_several_frames": int((first < last).sum()),
        "components_in_frame": [len(labels) for labels in present],
        "first_seen_in_frame": np.bincount(first, minlength=len(clip.indices)).tolist(),
    }


def _shrink(frames: UInt8[np.ndarray, "f h w 3"]) -> UInt8[np.ndarray, "f h w 3"]:
    """Bring the longer side to a size that is handy to look at; even sides, as video files want them."""
    height, width = frames.shape[1:3]
    scale = _LONGEST_SIDE_PX / max(height, width)
    size = [max(2, round(scale * side / 2) * 2) for side in (width, height)]
    return np.stack([np.asarray(Image.fromarray(frame).resize(size)) for frame in frames])


def _sheet(
    bands: list[UInt8[np.ndarray, "f h w 3"]], clip: VideoClip, result: CompressionResult
) -> Image.Image:
    """Put some frames side by side, the bands below one another."""
    num_frames, height, width = bands[0].shape[:3]
    shown = np.unique(np.linspace(0, num_frames - 1, min(num_frames, _MOST_COLUMNS)).round().astype(int))
    band_height = height + _LINE + _GAP
    sheet = Image.new(
        "RGB",
        (_GAP + len(shown) * (width + _GAP), 2 * _LINE + _GAP + len(bands) * band_height),
        _BACKGROUND,
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
    tau = "" if result.tau is None else f", tau {result.tau:.3f}"
    title = f"{result.num_input} -> {result.num_spatial} -> {result.num_kept} tokens{tau}"
    draw.text((_GAP, _GAP), title, _INK, font)
    for column, frame in enumerate(shown):
        left = _GAP + column * (width + _GAP)
        draw.text((left, _LINE + _GAP), f"{clip.timestamps_s[frame]:.2f} s", _INK, font)
        for row, band in enumerate(bands):
            top = 2 * _LINE + _GAP + row * band_height
            sheet.paste(Image.fromarray(band[frame]), (left, top + _LINE))
    for row, meaning in enumerate(_BANDS.values()):
        draw.text((_GAP, 2 * _LINE + _GAP + row * band_height + 4), meaning, _INK, font)
    return sheet


def _histogram(sizes: np.ndarray) -> Image.Image:
    """Draw how many components have 1, 2, 3-4, 5-8, ... tokens."""
    width, height, base = 60, 160, 220
    bins = np.bincount(np.ceil(np.log2(sizes)).astype(int))
    picture = Image.new("RGB", (_GAP + (width + _GAP) * max(4, len(bins)), base + 2 * _LINE), _BACKGROUND)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(_FONT_SIZE)
    draw.text((_GAP, 2), "components by their number of tokens", _INK, font)
    for exponent, count in enumerate(bins):
        left = _GAP + exponent * (width + _GAP)
        top = base - round(height * count / bins.max())
        draw.rectangle((left, top, left + width, base), (70, 120, 200))
        draw.text((left, top - _LINE + 4), str(count), _INK, font)
        low, high = 2**exponent // 2 + 1, 2**exponent
        draw.text((left, base + 4), str(high) if high <= 2 else f"{low}-{high}", _INK, font)
    return picture
