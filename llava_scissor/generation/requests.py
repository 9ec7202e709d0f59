"""One question or many, each about its own video, images or nothing, answered together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from llava_scissor.compression import Compressor
from llava_scissor.config import GenerationConfig, VideoConfig
from llava_scissor.errors import ScissorError
from llava_scissor.generation.answer import Answer
from llava_scissor.generation.decode import Decoder, JoinedRows, PlainRows, Reply, Rows, check_context
from llava_scissor.generation.encode import EncodedMedia, Media, count_visuals, encode_media
from llava_scissor.generation.fastv import prune
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import OneVision, Turn

OnText = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Request:
    """One question, with what it is about.

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

    def tokenize(self, model: OneVision) -> list[list[int]]:
        """Return the token ids of the prompt's texts before, between and behind the visual blocks."""
        return model.tokenize(self.question, count_visuals(self.media), self.history, self.system)


class Query:
    """A request whose prompt is ready for the language model, with its answer in the making.

    Attributes:
        media: what the model sees.
        text_ids: ids of the texts before, between and behind the visual blocks.
        positions: position of each row of the prompt (L,).
        pruned: the prompt, if the language model drops visual tokens of it; else None.
        reply: the answer so far.
    """

    def __init__(
        self, model: OneVision, request: Request, media: EncodedMedia, text_ids: list[list[int]]
    ) -> None:
        """Lay out the prompt.

        Args:
            model: the model.
            request: history, question, settings and compressor.
            media: what the request is about, encoded.
            text_ids: from `Request.tokenize`.

        Raises:
            InputError: prompt and answer do not fit into the context, or the language model cannot drop tokens
                where the compressor asks for it.
        """
        config = request.generation_config or GenerationConfig()
        self.media, self.text_ids = media, text_ids
        self.positions = media.positions(text_ids)
        check_context(int(self.positions[-1]) + 1, config.max_new_tokens, model.geometry.context_length)
        self.pruned = prune(model, text_ids, media, request.compressor)
        self.reply = Reply(model, config)
        self._request = request

    def answer(self, laps_s: dict[str, float], num_cached_tokens: int = 0) -> Answer:
        """Put together what is known when the last token is written; `laps_s` are its seconds by stage."""
        text, media = self.reply.text.whole(self.reply.ids), self.pruned.media if self.pruned else self.media
        return Answer(
            text=text,
            history=(*self._request.history, Turn(self._request.question, text)),
            compressions=media.compressions,
            clip=media.clip,
            image_sizes=media.image_sizes,
            timings_s={**laps_s, "total": sum(laps_s.values())},
            num_prompt_tokens=len(self.positions),
            num_visual_tokens=sum(map(len, media.visuals)),
            num_cached_tokens=num_cached_tokens,
            num_new_tokens=len(self.reply.ids),
            finish_reason="stop" if self.reply.has_stopped else "length",
        )


class Batch(Decoder):
    """Requests that are answered together, one token of each at every step.

    `step` and `drop` go by the number of a request. `ask_batch` steps to the end. Requests join at the start
    only.
    """

    def __init__(
        self,
        model: OneVision,
        requests: Sequence[Request],
        video_config: VideoConfig | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        compressor: Compressor | None = None,
    ) -> None:
        """Look at the videos and images, one after the other; arguments as for `ask_batch`."""
        self._prepared: list[tuple[Query, dict[str, float]] | ScissorError] = []
        for request in requests:
            complete = replace(
                request,
                generation_config=request.generation_config or generation_config,
                compressor=compressor if request.compressor is None else request.compressor,
            )
            try:
                self._prepared.append(_prepare(model, complete, video_config or VideoConfig()))
            except ScissorError as error:
                self._prepared.append(error)
        watch = Stopwatch(model.device)
        queries = {i: pair[0] for i, pair in enumerate(self._prepared) if isinstance(pair, tuple)}
        plain = {i: query for i, query in queries.items() if not query.pruned}
        parts: list[Rows] = [query.pruned for query in queries.values() if query.pruned]
        if plain:
            prompts = [model.embed(query.text_ids, query.media.visuals) for query in plain.values()]
            parts.insert(0, PlainRows(model, prompts, [query.positions for query in plain.values()]))
        replies = {i: query.reply for i, query in (plain | queries).items()}  # as the parts: plain ones first
        super().__init__(JoinedRows(parts), replies, watch)

    def outcomes(self) -> list[Answer | ScissorError]:
        """Return the answers, as far as they are written, and the errors, in the order of the requests."""
        return [
            done if isinstance(done, ScissorError) else done[0].answer({**done[1], **self._watch.laps_s})
            for done in self._prepared
        ]


def _prepare(model: OneVision, request: Request, config: VideoConfig) -> tuple[Query, dict[str, float]]:
    """Look at what a request is about; returns the seconds of the stages, too."""
    watch = Stopwatch(model.device)
    text_ids = request.tokenize(model)  # before the video is read, so that a mistyped question fails at once
    media = encode_media(model, request.media, config, watch, request.compressor)
    return Query(model, request, media, text_ids), watch.laps_s


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
    batch = Batch(model, requests, video_config, generation_config, compressor=compressor)
    while pieces := batch.step():
        for number, piece in pieces.items():
            if on_text and piece:
                on_text(number, piece)
    return batch.outcomes()


def ask(
    model: OneVision,
    media: Media,
    question: str,
    video_config: VideoConfig | None = None,
    generation_config: GenerationConfig | None = None,
    on_text: OnText | None = None,
    history: Sequence[Turn] = (),
    *,
    compressor: Compressor | None = None,
    system: str | None = None,
) -> Answer:
    """Ask one question about one video, about images, or about nothing but text.

    Args:
        model: the model. Several threads may ask it at the same time.
        media: a video as path, content of a file, or frames that were already read; `Images(...)`; what
            `encode_media` returned for one of them; or None.
        question: what to ask; not blank, without control tokens.
        video_config: how to take frames; for a clip that was already read only `resize` matters.
        generation_config: how to write the answer.
        on_text: called with each piece of the answer as it is written; the pieces add up to the answer.
        history: earlier turns of the conversation, oldest first; `Answer.history` of the turn before.
        compressor: what reduces the visual tokens; None for that of the model.
        system: the system prompt, a text as a question is; None for the one that the checkpoint was trained with.

    Returns:
        The answer with its history.

    Raises:
        InputError: the question cannot be asked, or prompt and answer do not fit into the model's context.
        ImageError: an image cannot be read.
        VideoError: the video cannot be read.
        MissingDependencyError: the decoder is not installed.
    """
    request = Request(media, question, tuple(history), system=system)
    show = None if on_text is None else lambda number, piece: on_text(piece)
    (outcome,) = ask_batch(model, [request], video_config, generation_config, show, compressor=compressor)
    if isinstance(outcome, ScissorError):
        raise outcome
    return outcome
