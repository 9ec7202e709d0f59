"""What the answers of a suite add up to: numbers with intervals, and pages to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from llava_scissor.demo.questions import QUESTION_TYPES
from llava_scissor.results.answers import ALL_TOKENS, Method, SuiteAnswer
from llava_scissor.results.statistics import estimate_accuracy, estimate_difference
from llava_scissor.results.store import Row

_EVERY_TYPE = "all"
_SUBJECT, _CHANCE = "scissor", "random"


def summarize_suite(answers: Sequence[SuiteAnswer]) -> list[Row]:
    """Return one row for each method and retention ratio.

    Returns:
        `method`, `retention`; `kept`, the share of tokens that stayed; `compression_ms` and `answer_ms`,
        medians over the clips, the latter for all questions about a clip together; `accuracy` by type of
        question and for `all`, each with its interval; `differences` to all tokens (`none`) and, at the same
        retention ratio, to `random` and `scissor`, in the same form.
    """
    groups: dict[Method, list[SuiteAnswer]] = {}
    for answer in answers:
        groups.setdefault((answer.method, answer.retention), []).append(answer)
    rows = []
    for (method, retention), mine in groups.items():
        clips = {a.clip: a for a in mine}.values()
        references = [ALL_TOKENS, (_CHANCE, retention), (_SUBJECT, retention)]
        rows.append(
            {
                "method": method,
                "retention": retention,
                "kept": sum(a.num_kept for a in clips) / sum(a.num_input for a in clips),
                "compression_ms": 1000 * median(a.compression_s for a in clips),
                "answer_ms": 1000 * median(a.answer_s for a in clips),
                "accuracy": {kind: asdict(estimate_accuracy(some)) for kind, some in _by_type(mine).items()},
                "differences": {
                    reference[0]: _differences(mine, groups[reference])
                    for reference in references
                    if reference in groups and reference != (method, retention)
                },
            }
        )
    return rows


def _by_type(answers: Sequence[SuiteAnswer]) -> dict[str, list[SuiteAnswer]]:
    groups = {kind: [a for a in answers if a.kind == kind] for kind in QUESTION_TYPES}
    return {_EVERY_TYPE: list(answers), **{kind: some for kind, some in groups.items() if some}}


def _differences(answers: Sequence[SuiteAnswer], reference: Sequence[SuiteAnswer]) -> dict[str, Any]:
    other = _by_type(reference)
    return {kind: asdict(estimate_difference(some, other[kind])) for kind, some in _by_type(answers).items()}


def as_markdown(summary: Mapping[str, Any]) -> str:
    """Write the numbers of a run as tables; `summary` is what the command stores as summary.json."""
    rows: list[Row] = summary["rows"]
    full, rows = rows[0], rows[1:]
    ratios = sorted({row["retention"] for row in rows}, reverse=True)
    accuracy = full["accuracy"][_EVERY_TYPE]
    parts = [
        f"# {summary['suite']}: {summary['num_clips']} clips, {accuracy['num_questions']} questions",
        f"All tokens: {show_share(accuracy)}. Behind ± is half the 95 % interval.",
    ]
    if not rows:
        return "\n\n".join([*parts, "## By type of question", _by_kind(full, [], 1.0)]) + "\n"
    parts.append("## Accuracy over all questions")
    parts.append(_by_ratio(rows, ratios, lambda row: show_share(row["accuracy"][_EVERY_TYPE])))
    for reference, name in ((_CHANCE, _CHANCE), (_SUBJECT, _SUBJECT), (ALL_TOKENS[0], "all tokens")):
        compared = [row for row in rows if reference in row["differences"]]
        if compared:
            table = _by_ratio(
                compared, ratios, lambda r, to=reference: show_gap(r["differences"][to][_EVERY_TYPE])
            )
            parts += [f"## Difference to {name}", "Paired; * where the interval is clear of zero.", table]
    for ratio in ratios:
        parts += [f"## By type of question, {ratio:.3g} of the tokens", _by_kind(full, rows, ratio)]
    if any(_SUBJECT in row["differences"] for row in rows):
        losses = find_losses(rows)
        parts.append(f"## Where {_SUBJECT} loses")
        parts.append(_table(losses) if losses else "Nowhere: no other method's interval lies above it.")
    parts += ["## Milliseconds of the compressor for a clip, median"]
    parts.append(_by_ratio(rows, ratios, lambda row: f"{row['compression_ms']:.1f}"))
    parts.append("## Milliseconds of the language model for all questions about a clip, median")
    parts.append(f"All tokens: {full['answer_ms']:.1f}.")
    parts.append(_by_ratio(rows, ratios, lambda row: f"{row['answer_ms']:.1f}"))
    return "\n\n".join(parts) + "\n"


def find_losses(rows: Iterable[Row]) -> list[dict[str, str]]:
    """Return, by retention ratio and type, the method furthest above scissor, where its interval is above zero."""
    best: dict[tuple[float, str], tuple[float, Row]] = {}
    for row in rows:
        for kind, difference in row["differences"].get(_SUBJECT, {}).items():
            place = row["retention"], kind
            if difference["low"] > 0 and difference["value"] > best.get(place, (0.0,))[0]:
                best[place] = difference["value"], row
    return [
        {
            "tokens": f"{ratio:.3g}",
            "type": kind,
            "better": row["method"],
            "its accuracy": show_share(row["accuracy"][kind]),
            "difference": show_gap(row["differences"][_SUBJECT][kind]),
        }
        for (ratio, kind), (_, row) in sorted(best.items(), key=lambda item: (-item[0][0], item[0][1]))
    ]


def _by_ratio(rows: Sequence[Row], ratios: Sequence[float], cell) -> str:
    """Return a table with a line for each method and a column for each retention ratio."""
    names = dict.fromkeys(row["method"] for row in rows)
    cells = {(row["method"], row["retention"]): cell(row) for row in rows}
    return _table([{"method": n, **{f"{r:.3g}": cells.get((n, r), "") for r in ratios}} for n in names])


def _by_kind(full: Row, rows: Sequence[Row], ratio: float) -> str:
    shown = [full, *(row for row in rows if row["retention"] == ratio)]
    return _table(
        [{"method": r["method"], **{k: f"{a['value']:.3f}" for k, a in r["accuracy"].items()}} for r in shown]
    )


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    lines = [list(rows[0]), ["---"] + ["--:"] * (len(rows[0]) - 1), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show_share(estimate: Mapping[str, float]) -> str:
    """Return an accuracy and half its interval."""
    return f"{estimate['value']:.3f} ±{(estimate['high'] - estimate['low']) / 2:.3f}"


def show_gap(estimate: Mapping[str, float]) -> str:
    """Return a difference and half its interval, with a star where the interval is clear of zero."""
    is_clear = estimate["low"] > 0 or estimate["high"] < 0
    return f"{estimate['value']:+.3f} ±{(estimate['high'] - estimate['low']) / 2:.3f}{'*' * is_clear}"
