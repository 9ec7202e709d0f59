"""`llava-scissor demo`: the shipped model and the shipped clips."""

from __future__ import annotations

import typer

from llava_scissor.cli.console import diagnostics
from llava_scissor.cli.options import Retentions, read_ratios


def demo(retention: Retentions = None) -> None:
    """Ask the shipped model about the shipped clips, with all visual tokens and with fewer."""
    with diagnostics(is_quiet=True):
        _print_showcase([1.0, *read_ratios(retention, (0.25, 0.1))])


def _print_showcase(ratios: list[float]) -> None:
    from llava_scissor.demo.showcase import showcase  # imports torch

    typer.echo(f"{'question':<52}{'right answer':<14}" + "".join(f"{ratio:<14.0%}" for ratio in ratios))
    clip, num_right, num_asked = "", [0] * len(ratios), 0
    for row in showcase(ratios):
        if row.clip != clip:
            clip = row.clip
            kept = " / ".join(str(answer.compressions[0].num_kept) for answer in row.answers)
            typer.echo(f"\n{clip}: {kept} of {row.answers[0].compressions[0].num_input} visual tokens")
        said = [answer.text for answer in row.answers]
        num_asked += 1
        num_right = [n + (text == row.question.answer) for n, text in zip(num_right, said, strict=True)]
        marks = [text if text == row.question.answer else f"{text} (!)" for text in said]
        typer.echo(
            f"{row.question.text:<52}{row.question.answer:<14}" + "".join(f"{m:<14}" for m in marks).rstrip()
        )
    totals = "".join(f"{f'{n} of {num_asked}':<14}" for n in num_right)
    typer.echo(f"\n{'right':<66}{totals.rstrip()}")
