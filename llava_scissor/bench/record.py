"""The visual tokens that a checkpoint makes of a video, as its compressor gets them."""

from __future__ import annotations

from pathlib import Path

from llava_scissor._version import __version__
from llava_scissor.bench.recordings import Recording, write_recording
from llava_scissor.compression import Identity
from llava_scissor.config import Config
from llava_scissor.generation.encode import encode_media
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import load_model_from


def record(settings: Config, video: str, path: Path) -> Recording:
    """Look at a video with a checkpoint and write the visual tokens to a safetensors file.

    The file holds `tokens` (F, P, D) in float16 or bfloat16 and, as metadata, `model`, `video`, the numbers of
    the video's `frames`, and the `version` of this package. No folder is named in it.

    Args:
        settings: the checkpoint and how frames are taken; nothing is compressed.
        video: path of the video.
        path: of the file, which is replaced.

    Returns:
        What was written.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        VideoError: the video cannot be read.
        InputError: the file cannot be written, or the tokens contain NaN or infinity.
    """
    model = load_model_from(settings.model)
    seen = encode_media(model, video, settings.video, Stopwatch(model.device), Identity())
    assert seen.clip is not None
    tokens = seen.compressions[0].tokens.unflatten(0, (len(seen.clip.indices), -1))  # (F, P, D)
    checkpoint = Path(settings.model.path)
    metadata = {
        "model": checkpoint.name if checkpoint.is_dir() else settings.model.path,
        "video": Path(video).name,
        "frames": " ".join(map(str, seen.clip.indices)),
        "version": __version__,
    }
    return write_recording(path, tokens, metadata)
