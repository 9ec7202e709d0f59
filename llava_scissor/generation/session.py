"""One video, some images or nothing, and any number of questions about it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from types import TracebackType

from llava_scissor.compression import Compressor
from llava_scissor.config import GenerationConfig, VideoConfig
from llava_scissor.errors import InputError
from llava_scissor.generation.answer import Answer
from llava_scissor.generation.decode import Decoder, JoinedRows
from llava_scissor.generation.encode import Media, encode_media
from llava_scissor.generation.prefix import PrefixCache
from llava_scissor.generation.requests import OnText, Query, Request
from llava_scissor.generation.stopwatch import Stopwatch
from llava_scissor.model import OneVision, Turn


class Session:
    """A video, images or nothing, encoded once, and any number of questions about it.

    The cache keeps the keys and values that a question shares with the one before it: of the system prompt, the
    visual tokens, and the earlier turns of a conversation. Only the rest is computed. Each answer is what `ask`
    gives for its question alone, up to the rounding of sums.

    Use a session from one thread, for one question at a time or several together. It holds the cache on the
    device until `close`, or the end of `with`.

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
        """Encode a video, images, or nothing.

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
        self._prefix: PrefixCache | None = PrefixCache(model)
        self._decoder: Decoder | None = None  # writes now, or wrote last

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
        stream = self.stream(question, history, generation_config)
        while True:
            try:
                piece = next(stream)
            except StopIteration as stop:
                return stop.value
            if on_text:
                on_text(piece)

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
        prefix, query = self._open_prefix(), self._prepare(question, history, generation_config)
        watch = Stopwatch(self._model.device)
        rows, num_cached = (query.pruned, 0) if query.pruned else prefix.start(query)
        decoder = self._decoder = Decoder(rows, {0: query.reply}, watch)
        for pieces in decoder:
            if pieces[0]:
                yield pieces[0]
            if self._decoder is not decoder:
                raise InputError(
                    "the session was asked another question, or closed, before this answer was "
                    "complete: read each stream to its end, or open a session for each"
                )
        return query.answer(watch.laps_s, num_cached)

    def ask_together(
        self,
        questions: Sequence[str],
        history: Sequence[Turn] = (),
        generation_config: GenerationConfig | None = None,
    ) -> list[Answer]:
        """Answer several questions as one batch, none of which follows another.

        The prompts share the keys and values of all that they begin with. Each answer is what `ask` gives for
        its question, up to the rounding of sums.

        Args:
            questions: what to ask.
            history: earlier turns of the conversation, the same for all questions.
            generation_config: how to write the answers.

        Returns:
            The answers in the order of the questions. `prefill` and `generate` in `Answer.timings_s` are those
            of the whole batch.

        Raises:
            InputError: as for `ask`, if one of the questions cannot be asked; none is answered then.

        Cost: memory for a copy of the shared keys and values for each question.
        """
        prefix = self._open_prefix()
        queries = [self._prepare(question, history, generation_config) for question in questions]
        watch = Stopwatch(self._model.device)
        pruned, num_cached = [query.pruned for query in queries if query.pruned], 0
        rows = JoinedRows(pruned)
        if queries and not pruned:
            rows, num_cached = prefix.share(queries)
        self._decoder = Decoder(rows, dict(enumerate(query.reply for query in queries)), watch)
        for _ in self._decoder:
            pass
        return [query.answer(watch.laps_s, num_cached) for query in queries]

    def close(self) -> None:
        """Free the cache; the session cannot be asked any more."""
        self._prefix = self._decoder = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_prefix(self) -> PrefixCache:
        if self._prefix is None:
            raise InputError("the session is closed: open another one")
        return self._prefix

    def _prepare(self, question: str, history: Sequence[Turn], config: GenerationConfig | None) -> Query:
        request = Request(
            self.media, question, tuple(history), config or self._config, self._compressor, self._system
        )
        return Query(self._model, request, self.media, request.tokenize(self._model))
