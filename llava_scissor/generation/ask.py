"""A video, images or nothing, and questions in; answers out."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import takewhile
from types import TracebackType

from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from llava_scissor.compression import Compressor
from llava_scissor.config import GenerationConfig, VideoConfig
from llava_scissor.errors import InputError
from llava_scissor.generation.answer import Answer, build_answer
from llava_scissor.generation.decoding import OnText, Reply, check_context, generate
from llava_scissor.generation.media import Media, count_visuals, encode_media
from llava_scissor.generation.pruning import prune
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import OneVision, Turn


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
        media: a video as path, content of a file, or frames that were already read; `Images(...)`; or None.
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
    num_visuals = count_visuals(media)
    # Checked before the video is read, so that a mistyped question fails at once.
    text_ids = model.tokenize(question, num_visuals, history, system)
    session = Session(model, media, video_config, generation_config, compressor=compressor, system=system)
    answer = _finish(session._write(text_ids, question, history, None), on_text)
    laps_s = {**session.timings_s, **answer.timings_s}
    del laps_s["total"]
    return replace(answer, timings_s={**laps_s, "total": sum(laps_s.values())})


class Session:
    """One video, some images or nothing, looked at once; then any number of questions about it.

    The keys and values of everything that a question has in common with the one before it stay in the cache:
    system prompt, visual tokens, and the earlier turns if the question follows them. Only what is new is
    computed. Each answer is what `ask` gives for its question alone, up to the rounding of sums.

    A session is for one thread, and one answer at a time is written. Between questions it holds the cache on
    the device; `close`, or the end of `with`, frees it.

    Attributes:
        media: what the model sees.
        timings_s: seconds of `decode`, `preprocess`, `vision_tower`, `compression`, and `total`, their sum.
    """

    def __init__(
        self,
        model: OneVision,
        media: Media = None,
        video_config: VideoConfig | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        compressor: Compressor | None = None,
        system: str | None = None,
    ) -> None:
        """Look at a video, at images, or at nothing.

        Args:
            model: the model.
            media: as for `ask`.
            video_config: how to take frames.
            generation_config: how to write answers, for questions that come without settings of their own.
            compressor: what reduces the visual tokens; None for that of the model.
            system: the system prompt of all questions; None for the one that the checkpoint was trained with.

        Raises:
            ImageError: an image cannot be read.
            VideoError: the video cannot be read.
            MissingDependencyError: the decoder is not installed.
        """
        watch = Stopwatch(model.device)
        self._compressor = model.compressor if compressor is None else compressor
        self._system = system
        self.media = encode_media(model, media, video_config or VideoConfig(), watch, self._compressor)
        self.timings_s = {**watch.laps_s, "total": sum(watch.laps_s.values())}
        self._model = model
        self._config = generation_config or GenerationConfig()
        self._cache: DynamicCache | None = DynamicCache(config=model.language_model.config)
        self._cached_ids: list[int] = []  # ids in the cache behind the visual tokens
        self._reply: Reply | None = None  # the answer that is written now, or was written last

    def ask(
        self,
        question: str,
        history: Sequence[Turn] = (),
        generation_config: GenerationConfig | None = None,
        on_text: OnText | None = None,
    ) -> Answer:
        """Answer a question; with `history=answer.history` one that follows an earlier answer.

        Raises:
            InputError: the question cannot be asked, prompt and answer do not fit into the model's context, or
                the session is closed.
        """
        return _finish(self.stream(question, history, generation_config), on_text)

    def stream(
        self,
        question: str,
        history: Sequence[Turn] = (),
        generation_config: GenerationConfig | None = None,
    ) -> Generator[str, None, Answer]:
        """Answer a question piece by piece.

        Yields:
            Pieces of text that add up to the answer. The generator's return value is the `Answer`.

        Raises:
            InputError: as for `ask`, at the first piece; or another question was asked before the last piece.
        """
        text_ids = self._model.tokenize(question, len(self.media.visuals), history, self._system)
        return self._write(text_ids, question, history, generation_config)

    def close(self) -> None:
        """Free the cache; the session cannot be asked any more."""
        self._cache = self._reply = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(
        self,
        text_ids: list[list[int]],
        question: str,
        history: Sequence[Turn],
        generation_config: GenerationConfig | None,
    ) -> Generator[str, None, Answer]:
        if self._cache is None:
            raise InputError("the session is closed: open another one")
        config = generation_config or self._config
        positions = self.media.positions(text_ids)
        num_prompt_tokens = len(positions)
        check_context(int(positions[-1]) + 1, config.max_new_tokens, self._model.geometry.context_length)
        watch = Stopwatch(self._model.device)
        reply = self._reply = Reply(self._model, config)
        pruned = prune(self._model, text_ids, self.media, self._compressor)
        prompt = pruned.prompt if pruned else self._embed_new(text_ids)  # (L, D)
        new = positions[len(positions) - len(prompt) :]
        plain = generate(self._model, [prompt], [reply], self._cache, watch, [new])
        for _ in pruned.generate(reply, watch) if pruned else plain:  # a pruned prompt has a cache of its own
            self._cached_ids = [*text_ids[-1], *reply.ids[:-1]]
            if piece := reply.text.next_piece(reply.ids, reply.is_done):
                yield piece
                if self._reply is not reply:
                    raise InputError(
                        "the session was asked another question, or closed, before this answer was "
                        "complete: read each stream to its end, or open a session for each"
                    )
        num_cached = num_prompt_tokens - len(prompt)
        media = pruned.media if pruned else self.media
        return build_answer(question, history, media, reply, watch.laps_s, num_prompt_tokens, num_cached)

    def _embed_new(self, text_ids: list[list[int]]) -> Float[Tensor, "l d"]:
        """Keep in the cache what the prompt begins with, and return the embeddings of the rest."""
        *before, ids = text_ids
        num_before = sum(map(len, before)) + sum(map(len, self.media.visuals))
        num_cached = num_before + len(self._cached_ids)
        if any(layer.get_seq_length() != num_cached for layer in self._cache.layers):
            # Nothing is there yet, or a step that failed left the layers uneven.
            self._cache = DynamicCache(config=self._model.language_model.config)
            return self._model.embed(text_ids, self.media.visuals)
        # The last id is always computed: its logits are the first token of the answer.
        pairs = zip(self._cached_ids, ids[:-1], strict=False)
        num_shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self._cache.crop(num_shared - len(self._cached_ids))
        self._cached_ids = ids[:num_shared]
        return self._model.embed([ids[num_shared:]], [])


def _finish(stream: Generator[str, None, Answer], on_text: OnText | None) -> Answer:
    """Read a stream to its end."""
    while True:
        try:
            piece = next(stream)
        except StopIteration as stop:
            return stop.value
        if on_text:
            on_text(piece)
