"""A video and a question in, an answer out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llava_scissor.compression import CompressionResult
from llava_scissor.config import GenerationConfig, VideoConfig
from llava_scissor.generation.decoding import OnText, decode_text, find_stop_ids, generate_ids
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import OneVision
from llava_scissor.video import VideoClip, preprocess_frames, read_video


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model said, and how it got there.

    Attributes:
        text: the answer, without control tokens and without space around it.
        compression: which visual tokens were kept.
        clip: the frames that were looked at.
        timings_s: seconds of `decode` (of the video), `preprocess`, `vision_tower` (with projector and
            pooling), `compression`, `prefill` (up to the logits of the first token), `generate` (all after
            that) and `total`, their sum.
        num_prompt_tokens: positions of the prompt, text and visual tokens together.
        num_new_tokens: tokens of the answer, the one that ended it included.
    """

    text: str
    compression: CompressionResult
    clip: VideoClip
    timings_s: dict[str, float]
    num_prompt_tokens: int
    num_new_tokens: int


def ask(
    model: OneVision,
    video: str | Path | bytes | VideoClip,
    question: str,
    video_config: VideoConfig,
    generation_config: GenerationConfig,
    on_text: OnText | None = None,
) -> Answer:
    """Ask one question about one video.

    Args:
        model: the model, which brings its compressor.
        video: a path, the content of a video file, or frames that were already read.
        question: what to ask; not blank, without control tokens.
        video_config: how to take frames; for a clip that was already read only `resize` matters.
        generation_config: how to write the answer.
        on_text: called with each piece of the answer as it is written; the pieces add up to the answer.

    Returns:
        The answer with its history.

    Raises:
        InputError: the question cannot be asked, or prompt and answer do not fit into the model's context.
        VideoError: the video cannot be read.
        MissingDependencyError: the decoder is not installed.
    """
    watch = Stopwatch(model.device)
    geometry = model.geometry
    text_ids = model.tokenize(question)  # before the work on the video, for the sake of who mistyped
    clip = _read(video, video_config, geometry.default_num_frames)
    watch.lap("decode")
    pixel_values = preprocess_frames(
        clip.frames, geometry.image_size, geometry.image_mean, geometry.image_std, video_config.resize
    )  # (F, 3, S, S)
    watch.lap("preprocess")
    tokens = model.encode_video(pixel_values)  # (F, P, D)
    watch.lap("vision_tower")
    compression = model.compress(tokens)  # .tokens (K, D)
    watch.lap("compression")
    inputs_embeds = model.embed_prompt(text_ids, compression.tokens)  # (L, D)
    new_ids = generate_ids(model, inputs_embeds, generation_config, on_text, watch)
    return Answer(
        text=decode_text(new_ids, model.tokenizer, find_stop_ids(model)),
        compression=compression,
        clip=clip,
        timings_s={**watch.laps_s, "total": sum(watch.laps_s.values())},
        num_prompt_tokens=len(inputs_embeds),
        num_new_tokens=len(new_ids),
    )


def _read(video: str | Path | bytes | VideoClip, config: VideoConfig, default_num_frames: int) -> VideoClip:
    if isinstance(video, VideoClip):
        return video
    num_frames = default_num_frames if config.num_frames is None else config.num_frames
    return read_video(video, num_frames, config.decoder)
