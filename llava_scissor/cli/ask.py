"""`llava-scissor ask`: results on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from llava_scissor.cli import answers as answers_shown
from llava_scissor.cli.console import diagnostics
from llava_scissor.cli.options import ConfigFile, Model, Overrides, Retention, read_settings
from llava_scissor.config import Config, to_dict
from llava_scissor.errors import InputError

if TYPE_CHECKING:
    from llava_scissor.generation import Answer, Session

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AskOptions:
    """What `ask` was called with; see its options."""

    questions: tuple[str, ...]
    video: str | None = None
    images: tuple[str, ...] = ()
    use_json: bool = False
    use_stream: bool = False
    is_conversation: bool = False


def ask(
    question: Annotated[list[str], typer.Option(metavar="<str>", help="What to ask; repeatable.")],
    video: Annotated[str | None, typer.Option(help="Video file to ask about.")] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="<str>", help="Image file to ask about, instead of a video; repeatable."),
    ] = None,
    config: ConfigFile = None,
    model: Model = None,
    retention: Retention = None,
    overrides: Overrides = None,
    use_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; with --stream, the text goes to stderr.")
    ] = False,
    use_stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it is written.")] = False,
    conversation: Annotated[
        bool, typer.Option("--conversation", help="Each question follows the answers before it.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")] = False,
) -> None:
    """Answer questions about a video, about images, or without either."""
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet exclude each other")
    if video is not None and image:
        raise typer.BadParameter("--video and --image exclude each other")
    with diagnostics(verbose, quiet):
        settings = read_settings(config, overrides, model, retention=retention)
        images = tuple(image or ())
        run_ask(settings, AskOptions(tuple(question), video, images, use_json, use_stream, conversation))


def run_ask(config: Config, options: AskOptions) -> None:
    """Answer the questions and print the result on stdout.

    Raises:
        ScissorError: the settings, the video or images, the checkpoint or a question cannot be used.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # where a character cannot be shown, show "?"
        sys.stdout.reconfigure(errors="replace")
    if not all(question.strip() for question in options.questions):
        raise InputError("--question: got an empty text, expected a question")
    if options.is_conversation and len(options.questions) == 1:
        logger.warning("--conversation has no effect with one --question")
    for section, values in to_dict(config).items():
        used = " ".join(f"{key}={value}" for key, value in values.items() if value not in (None, []))
        logger.info("%s: %s", section, used)

    session = _open_session(config, options)
    on_text = _text_printer(options.use_json) if options.use_stream else None
    is_one_of_several = len(options.questions) > 1
    answers: list[Answer] = []
    for question in options.questions:
        if is_one_of_several and not options.use_json:
            answers_shown.print_question(question)
        history = answers[-1].history if answers and options.is_conversation else ()
        answers.append(session.ask(question, history, on_text=on_text))
        if options.use_stream:
            typer.echo(err=options.use_json)  # ends the streamed line
        elif not options.use_json:
            answers_shown.print_text(answers[-1])
    if options.use_json:
        result = answers_shown.as_json(answers, session.timings_s, options.images, config)
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        answers_shown.print_summary(answers, session.timings_s)


def _open_session(config: Config, options: AskOptions) -> Session:
    # Imported here, because the settings are to be checked before seconds go into importing torch.
    from llava_scissor.compression import build_compressor
    from llava_scissor.generation import Session
    from llava_scissor.model import Images, load_model_from
    from llava_scissor.video.source import VideoSource

    media = options.video
    if options.images:  # checked before minutes go into loading a large model
        media = Images(*options.images, compress=config.compression.images)
        media.read()
    elif options.video is not None:
        VideoSource.check(options.video)
    compressor = build_compressor(config.compression)
    logger.info("loading %s", config.model.path)
    model = load_model_from(config.model, compressor)
    subject = ", ".join(options.images) or options.video or "nothing but text"
    logger.info("asking about %s on %s in %s", subject, model.device, model.dtype)
    return Session(model, media, config.video, config.generation)


def _text_printer(use_stderr: bool) -> Callable[[str], None]:
    def show(text: str) -> None:
        stream = sys.stderr if use_stderr else sys.stdout
        stream.write(text)
        stream.flush()

    return show
