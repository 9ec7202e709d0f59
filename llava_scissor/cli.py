"""The `llava-scissor` command: results on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llava_scissor import bench_commands, commands, report
from llava_scissor._version import __version__
from llava_scissor.config import Config, load_config, to_dict
from llava_scissor.console import OTHER_MISTAKE, diagnostics
from llava_scissor.errors import InputError

if TYPE_CHECKING:
    from llava_scissor.generation import Answer, Session

logger = logging.getLogger(__name__)

_APP_STYLE: dict[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "add_completion": False,
}

app = typer.Typer(
    help="Ask questions about videos and images with LLaVA-OneVision and compressed visual tokens.",
    no_args_is_help=True,
    **_APP_STYLE,
)
bench = typer.Typer(help="Measure time and memory side by side.", no_args_is_help=True, **_APP_STYLE)


@dataclass(frozen=True)
class AskOptions:
    """What `ask` was called with; see its options."""

    questions: tuple[str, ...]
    video: str | None = None
    images: tuple[str, ...] = ()
    config: Path | None = None
    overrides: tuple[str, ...] = ()
    use_json: bool = False
    use_stream: bool = False
    is_conversation: bool = False


def main() -> None:
    """Run the `llava-scissor` command."""
    app(prog_name="llava-scissor")


def main_ask() -> None:
    """Run `llava-scissor ask` as a command of its own."""
    single = typer.Typer(**_APP_STYLE)
    single.command()(ask)
    single()


def main_bench() -> None:
    """Run `llava-scissor bench` as a command of its own."""
    bench()


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"llava-scissor {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Take the options that belong to no single command."""


@app.command()
def ask(
    question: Annotated[list[str], typer.Option(metavar="<str>", help="What to ask; repeatable.")],
    video: Annotated[str | None, typer.Option(help="Video file to ask about.")] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="<str>", help="Image file to ask about, instead of a video; repeatable."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML settings; without it, the shipped demo.")] = None,
    model: Annotated[str | None, typer.Option(help="Checkpoint, instead of the key model.path.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Change one key of the settings; repeatable."
        ),
    ] = None,
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
        model_override = [] if model is None else [f"model.path={json.dumps(model, ensure_ascii=False)}"]
        all_overrides = (*(overrides or ()), *model_override)
        run_ask(
            AskOptions(
                tuple(question),
                video,
                tuple(image or ()),
                config,
                all_overrides,
                use_json,
                use_stream,
                conversation,
            )
        )


@app.command()
def demo(
    retention: Annotated[
        list[float] | None, typer.Option(help="Retention ratio to compare with all tokens; repeatable.")
    ] = None,
) -> None:
    """Ask the shipped model about the shipped clips, with all visual tokens and with fewer."""
    with diagnostics(is_verbose=False, is_quiet=True):
        _print_showcase([1.0, *(retention or (0.25, 0.1))])


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="Checkpoint: a directory, a Hugging Face hub id, or demo.")],
    use_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a checkpoint is and what of it would be loaded, without loading it."""
    with diagnostics(is_verbose=False, is_quiet=False):
        from llava_scissor.model.inspection import as_rows, inspect_checkpoint  # imports torch

        found = inspect_checkpoint(path)
        if use_json:
            typer.echo(json.dumps(asdict(found), allow_nan=False))
        else:
            table = Table.grid(padding=(0, 2))
            for name, text in as_rows(found):
                table.add_row(Text(name, style="bold"), Text(text, overflow="fold"))
            Console(highlight=False).print(table)
        if found.problems:
            raise typer.Exit(OTHER_MISTAKE)


app.command()(commands.visualize)
app.command()(commands.flops)
app.command("eval")(commands.evaluate)
bench.command("compressor")(bench_commands.bench_compressor)
bench.command("growth")(bench_commands.bench_growth)
bench.command("model")(bench_commands.bench_model)
app.add_typer(bench, name="bench")


def _print_showcase(ratios: list[float]) -> None:
    from llava_scissor.demo.showcase import showcase  # imports torch

    typer.echo(f"{'question':<52}{'right answer':<14}" + "".join(f"{ratio:<14.0%}" for ratio in ratios))
    clip, num_right, num_asked = "", [0] * len(ratios), 0
    for row in showcase(ratios):
        if row.clip != clip:
            clip = row.clip
            kept = " / ".join(str(answer.compression.num_kept) for answer in row.answers)
            typer.echo(f"\n{clip}: {kept} of {row.answers[0].compression.num_input} visual tokens")
        said = [answer.text for answer in row.answers]
        num_asked += 1
        num_right = [n + (text == row.question.answer) for n, text in zip(num_right, said, strict=True)]
        marks = [text if text == row.question.answer else f"{text} (!)" for text in said]
        typer.echo(
            f"{row.question.text:<52}{row.question.answer:<14}" + "".join(f"{m:<14}" for m in marks).rstrip()
        )
    totals = "".join(f"{f'{n} of {num_asked}':<14}" for n in num_right)
    typer.echo(f"\n{'right':<66}{totals.rstrip()}")


def run_ask(options: AskOptions) -> None:
    """Answer the questions and print the result on stdout.

    Raises:
        ScissorError: the settings, the video or images, the checkpoint or a question cannot be used.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # where a character cannot be shown, show "?"
        sys.stdout.reconfigure(errors="replace")
    config = load_config(options.config, options.overrides)
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
            report.print_question(question)
        history = answers[-1].history if answers and options.is_conversation else ()
        answers.append(session.ask(question, history, on_text=on_text))
        if options.use_stream:
            typer.echo(err=options.use_json)  # ends the streamed line
        elif not options.use_json:
            report.print_text(answers[-1])
    if options.use_json:
        result = report.as_json(answers, session.timings_s, options.images, config)
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        report.print_summary(answers, session.timings_s)


def _open_session(config: Config, options: AskOptions) -> Session:
    # Imported here, because the settings are to be checked before seconds go into importing torch.
    from llava_scissor.compression import build_compressor
    from llava_scissor.generation import Session
    from llava_scissor.model import Images, load_model_from
    from llava_scissor.video.source import VideoSource

    media = Images(*options.images, compress=config.compression.images) if options.images else options.video
    if options.images:  # before minutes go into loading a large model
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


if __name__ == "__main__":
    main()
