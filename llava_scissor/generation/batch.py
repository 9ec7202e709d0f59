"""Several questions about several videos, answered together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from llava_scissor.compression import Compressor
from llava_scissor.config import GenerationConfig, VideoConfig
from llava_scissor.errors import ScissorError
from llava_scissor.generation.answer import Answer, build_answer
from llava_scissor.generation.decoding import Reply, check_context, generate
from llava_scissor.generation.media import EncodedMedia, Media, count_visuals, encode_media
from llava_scissor.generation.pruning import PrunedPrompt, prune
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import OneVision, Turn


@dataclass(frozen=True, eq=False)
class Request:
    """One question of a batch, with what it is about.

    Attributes:
        media: a video, `Images(...)`, or None; as for `ask`.
        question: what to ask.
        history: earlier turns of the conversation, oldest first.
        generation_config: how to write this answer; None for the settings of the batch.
        compressor: what reduces the visual tokens; None for that of the batch.
        system: the system prompt; None for the one that the checkpoint was trained with.
    """

    media: Media
    question: str
    history: tuple[Turn, ...] = ()
    generation_config: GenerationConfig | None = None
    compressor: Compressor | None = None
    system: str | None = None


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A request whose prompt is ready for the language model."""

    request: Request
    media: EncodedMedia
    inputs_embeds: Float[Tensor, "l d"]
    positions: Int64[Tensor, " l"]
    pruned: PrunedPrompt | None
    reply: Reply
    laps_s: dict[str, float]


def ask_batch(
    model: OneVision,
    requests: Sequence[Request],
    video_config: VideoConfig | None = None,
    generation_config: GenerationConfig | None = None,
    on_text: Callable[[int, str], None] | None = None,
    *,
    compressor: Compressor | None = None,
) -> list[Answer | ScissorError]:
    """Ask many questions; the language model works on all of them at once.

    Videos and images are looked at one after the other, the answers are written together. Each answer is what
    `ask` gives for its request alone, up to the rounding of sums: a shorter prompt is padded on the left, and
    each answer has its own settings, random draw and end.

    Args:
        model: the model.
        requests: what to ask; the batch is as large as there are requests.
        video_config: how to take frames, for all videos.
        generation_config: how to write answers, for requests without settings of their own.
        on_text: called with the number of the request and each new piece of its answer.
        compressor: what reduces visual tokens, for requests without one of their own; None for that of the
            model.

    Returns:
        In the order of the requests, its `Answer`, or the error that `ask` would have raised for it: a video
        that cannot be read takes nothing from the others. Errors that are not about one request are raised.
        `prefill` and `generate` in `Answer.timings_s` are those of the whole batch.

    Cost: memory for the keys and values of all prompts, each as long as the longest.
    """
    config = generation_config or GenerationConfig()
    outcomes: list[Answer | ScissorError | _Prepared] = []
    for request in requests:
        try:
            outcomes.append(_prepare(model, request, video_config or VideoConfig(), config, compressor))
        except ScissorError as error:
            outcomes.append(error)
    places = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, _Prepared)]
    prepared = [outcome for outcome in outcomes if isinstance(outcome, _Prepared)]
    watch = Stopwatch(model.device)
    if prepared:
        for row in _generate(model, prepared, watch):
            reply = prepared[row].reply
            if on_text and (piece := reply.text.next_piece(reply.ids, reply.is_done)):
                on_text(places[row], piece)
    for place, done in zip(places, prepared, strict=True):
        outcomes[place] = build_answer(
            done.request.question,
            done.request.history,
            done.pruned.media if done.pruned else done.media,
            done.reply,
            {**done.laps_s, **watch.laps_s},
            len(done.inputs_embeds),
        )
    return outcomes


def _prepare(
    model: OneVision,
    request: Request,
    video_config: VideoConfig,
    config: GenerationConfig,
    compressor: Compressor | None,
) -> _Prepared:
    watch = Stopwatch(model.device)
    config = request.generation_config or config
    compressor = compressor if request.compressor is None else request.compressor
    num_visuals = count_visuals(request.media)
    text_ids = model.tokenize(request.question, num_visuals, request.history, request.system)
    media = encode_media(model, request.media, video_config, watch, compressor)
    pruned = prune(model, text_ids, media, compressor)
    inputs_embeds = pruned.prompt if pruned else model.embed(text_ids, media.visuals)  # (L, D)
    positions = media.positions(text_ids)
    check_context(int(positions[-1]) + 1, config.max_new_tokens, model.geometry.context_length)
    return _Prepared(request, media, inputs_embeds, positions, pruned, Reply(model, config), watch.laps_s)


def _generate(model: OneVision, prepared: list[_Prepared], watch: Stopwatch) -> Iterator[int]:
    """Write all answers together, but one after the other those whose prompts are pruned on the way."""
    for row, done in enumerate(prepared):
        if done.pruned:
            yield from (row for _ in done.pruned.generate(done.reply, watch))
    rest = {row: done for row, done in enumerate(prepared) if not done.pruned}
    if rest:
        prompts = [done.inputs_embeds for done in rest.values()]
        replies, positions = [d.reply for d in rest.values()], [d.positions for d in rest.values()]
        yield from (
            list(rest)[i] for i in generate(model, prompts, replies, watch=watch, positions=positions)
        )
