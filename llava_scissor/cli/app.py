"""The `llava-scissor` command: its table of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from llava_scissor._version import __version__
from llava_scissor.cli.ask import ask
from llava_scissor.cli.bench_compressor import bench_compressor
from llava_scissor.cli.bench_growth import bench_growth
from llava_scissor.cli.bench_model import bench_model
from llava_scissor.cli.bench_record import bench_record
from llava_scissor.cli.demo import demo
from llava_scissor.cli.evaluate import evaluate
from llava_scissor.cli.flops import flops
from llava_scissor.cli.inspect import inspect
from llava_scissor.cli.options import APP_STYLE
from llava_scissor.cli.reproduce import reproduce
from llava_scissor.cli.visualize import visualize

COMMANDS = {
    "ask": ask,
    "demo": demo,
    "inspect": inspect,
    "visualize": visualize,
    "flops": flops,
    "eval": evaluate,
    "reproduce": reproduce,
}
BENCHES = {
    "compressor": bench_compressor,
    "growth": bench_growth,
    "model": bench_model,
    "record": bench_record,
}

app = typer.Typer(
    help="Ask questions about videos and images with LLaVA-OneVision and compressed visual tokens.",
    no_args_is_help=True,
    **APP_STYLE,
)
bench = typer.Typer(help="Measure time and memory side by side.", no_args_is_help=True, **APP_STYLE)


def main(arguments: list[str] | None = None) -> None:
    """Run the command with these arguments; without them, with those of the process."""
    app(arguments, prog_name="llava-scissor")


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


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
for _name, _command in BENCHES.items():
    bench.command(_name)(_command)
app.add_typer(bench, name="bench")
