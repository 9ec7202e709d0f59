"""The `llava-scissor` command: results on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llava_scissor._version import __version__
from llava_scissor.config import Config, load_config, to_dict
from llava_scissor.errors import ConfigError, InputError, ScissorError

if TYPE_CHECKING:
    from llava_scissor.generation import Answer

logger = logging.getLogger(__name__)

_USAGE_MISTAKE = 2
_OTHER_MISTAKE = 1
_APP_STYLE: dict[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "add_completion": False,
}

app = typer.Typer(
    help="Ask questions about videos with LLaVA-OneVision and compressed visual tokens.",
    no_args_is_help=True,
    **_APP_STYLE,
)


@dataclass(frozen=True)
class AskOptions:
    """What `ask` was called with; see its options."""

    video: str
    question: str
    config: Path | None = None
    overrides: tuple[str, ...] = ()
    use_json: bool = False
    use_stream: bool = False


def main() -> None:
    """Run the `llava-scissor` command."""
    app(prog_name="llava-scissor")


def main_ask() -> None:
    """Run `llava-scissor ask` as a command of its own."""
    single = typer.Typer(**_APP_STYLE)
    single.command()(ask)
    single()


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
    video: Annotated[str, typer.Option(help="Video file to ask about.")],
    question: Annotated[str, typer.Option(help="What to ask.")],
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
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")] = False,
) -> None:
    """Answer a question about a video."""
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet exclude each other")
    with _diagnostics(verbose, quiet):
        model_override = [] if model is None else [f"model.path={json.dumps(model, ensure_ascii=False)}"]
        all_overrides = (*(overrides or ()), *model_override)
        run_ask(AskOptions(video, question, config, all_overrides, use_json, use_stream))


@app.command()
def demo(
    retention: Annotated[
        list[float] | None, typer.Option(help="Retention ratio to compare with all tokens; repeatable.")
    ] = None,
) -> None:
    """Ask the shipped model about the shipped clips, with all visual tokens and with fewer."""
    with _diagnostics(is_verbose=False, is_quiet=True):
        _print_showcase([1.0, *(retention or (0.25, 0.1))])


@app.command()
def inspect(
    path: Annotated[str, typer.Argument(help="Checkpoint: a directory, a Hugging Face hub id, or demo.")],
    use_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a checkpoint is and what of it would be loaded, without loading it."""
    with _diagnostics(is_verbose=False, is_quiet=False):
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
            raise typer.Exit(_OTHER_MISTAKE)


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
    """Answer a question and print the result on stdout.

    Raises:
        ScissorError: the settings, the video, the checkpoint or the question cannot be used.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # where a character cannot be shown, show "?"
        sys.stdout.reconfigure(errors="replace")
    config = load_config(options.config, options.overrides)
    if not options.question.strip():
        raise InputError("--question: got an empty text, expected a question")
    for section, values in to_dict(config).items():
        used = " ".join(f"{key}={value}" for key, value in values.items() if value is not None)
        logger.info("%s: %s", section, used)

    answer = _answer(config, options, _text_printer(options.use_json) if options.use_stream else None)

    if options.use_stream:
        typer.echo(err=options.use_json)  # ends the streamed line
    if options.use_json:
        typer.echo(json.dumps(_as_json(answer, config), allow_nan=False))
    else:
        _print_for_people(answer, is_text_shown=options.use_stream)


def _answer(config: Config, options: AskOptions, on_text: Callable[[str], None] | None) -> Answer:
    # Imported here, because the settings are to be checked before seconds go into importing torch.
    from llava_scissor.compression import build_compressor
    from llava_scissor.generation import ask as ask_model
    from llava_scissor.model import load_model
    from llava_scissor.video.source import VideoSource

    VideoSource.check(options.video)  # before minutes go into loading a large model
    settings = config.model
    compressor = build_compressor(config.compression)
    logger.info("loading %s", settings.path)
    model = load_model(
        settings.path,
        settings.device,
        settings.dtype,
        settings.attn_implementation,
        compressor,
        device_map=settings.device_map,
        quantization=settings.quantization,
    )
    logger.info("asking about %s on %s in %s", options.video, model.device, model.dtype)
    return ask_model(model, options.video, options.question, config.video, config.generation, on_text)


def _text_printer(use_stderr: bool) -> Callable[[str], None]:
    def show(text: str) -> None:
        stream = sys.stderr if use_stderr else sys.stdout
        stream.write(text)
        stream.flush()

    return show


def _as_json(answer: Answer, config: Config) -> dict[str, Any]:
    clip, compression = answer.clip, answer.compression
    has_tau = compression.tau is not None and math.isfinite(compression.tau)
    return {
        "answer": answer.text,
        "tokens": {
            "input": compression.num_input,
            "spatial": compression.num_spatial,
            "kept": compression.num_kept,
        },
        "tau": compression.tau if has_tau else None,
        "timings_s": dict(answer.timings_s),
        "num_prompt_tokens": answer.num_prompt_tokens,
        "num_new_tokens": answer.num_new_tokens,
        "video": {
            "source": clip.source,
            "indices": list(clip.indices),
            "timestamps_s": list(clip.timestamps_s),
            "num_source_frames": clip.num_source_frames,
            "num_missing": clip.num_missing,
            "fps": clip.fps,
        },
        "config": to_dict(config),
        "version": __version__,
    }


def _print_for_people(answer: Answer, is_text_shown: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if not is_text_shown:
        console.print(Text(answer.text or "(the model wrote nothing)", style="bold"))
    clip, compression = answer.clip, answer.compression
    missing = f", {clip.num_missing} could not be decoded" if clip.num_missing else ""
    counts = [
        f"{count:,} ({100 * count / compression.num_input:.1f} %)"
        for count in (compression.num_spatial, compression.num_kept)
    ]
    rows = {
        "frames": f"{len(clip.indices)} of {clip.num_source_frames}{missing}",
        "tokens": " -> ".join([f"{compression.num_input:,}", *counts]),
        "tau": "none" if compression.tau is None else f"{compression.tau:.4f}",
    }
    for stage, seconds in answer.timings_s.items():
        written = f"  {answer.num_new_tokens} tokens" if stage == "generate" else ""
        rows[stage.replace("_", " ")] = f"{seconds:7.3f} s{written}"
    table = "\n".join(f"{name:<14}{value}" for name, value in rows.items())
    console.print(Text(f"\n{table}"))


class _ConsoleHandler(logging.Handler):
    """Shows log records on a rich console, one unwrapped line each."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        is_alarming = record.levelno >= logging.WARNING
        prefix = f"{record.levelname.lower()}: " if is_alarming else ""
        self._console.print(Text(prefix + record.getMessage(), style="yellow" if is_alarming else "dim"))


@contextmanager
def _diagnostics(is_verbose: bool, is_quiet: bool) -> Iterator[None]:
    """Show the package's log on stderr; turn a `ScissorError` into one message and an exit code."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    handler = _ConsoleHandler(console)
    package_logger = logging.getLogger("llava_scissor")
    previous_level = package_logger.level
    package_logger.addHandler(handler)
    package_logger.setLevel(logging.DEBUG if is_verbose else logging.ERROR if is_quiet else logging.INFO)
    try:
        yield
    except ScissorError as error:
        console.print(Text(f"error: {error}", style="red"))
        is_usage_mistake = isinstance(error, (ConfigError, InputError))
        raise typer.Exit(_USAGE_MISTAKE if is_usage_mistake else _OTHER_MISTAKE) from None
    finally:
        package_logger.removeHandler(handler)
        package_logger.setLevel(previous_level)


if __name__ == "__main__":
    main()
