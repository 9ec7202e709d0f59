"""The tables of the paper: as printed, with their averages computed again and doubtful cells named."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from llava_scissor.config.visual_budget import budget
from llava_scissor.errors import InputError
from llava_scissor.model.published import published_geometry
from llava_scissor.paper.flops import paper_compression_flops, paper_flops

Row = dict[str, Any]

NUM_FRAMES = 32
_NUM_PRUNING_LAYERS = 3
"""FastV sees all tokens in its first layers; how many, according to the paper."""
_DYCOKE_TOKENS_AT_50 = 3098
"""What DyCoke's published code keeps of 32 frames: the last of eight windows keeps one more frame whole."""

# Which columns an average is of; the value of a ratio is taken relative to the row of the full model.
_RATIOS = {
    "1": (
        *("activitynet_acc", "activitynet_score", "videochatgpt_ci", "videochatgpt_do", "videochatgpt_cu"),
        *("videochatgpt_tu", "videochatgpt_co", "nextqa"),
    ),
    "2": ("egoschema", "mlvu", "videomme", "videommmu"),
    "7": ("videochatgpt", "mvbench", "mlvu", "videomme", "egoschema"),
}
_MEANS = {"6": ("activitynet", "mvbench", "mlvu", "videomme", "nextqa")}
_NOT_SCORES = {"method", "retention", "avg"}

_DOUBTFUL = {
    ("5", "LLaVA-Scissor", 7): "6.28 % is printed; 2.9 of 41.4 TFLOPs are 7.0 %",
    ("5", "LLaVA-Scissor", 50): "less is printed than the language model alone costs on half of the tokens",
    ("6", "PACT", 35): "98.3 is printed; the mean of the printed cells is 98.8",
    ("6", "VisionZip", 35): "ActivityNet 94.4 is printed; table 1 gives 92.9",
}


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        number: as in the paper, for example "1" or "4a".
        title: what it shows.
        rows: as printed, column by column.
    """

    number: str
    title: str
    rows: tuple[Row, ...]

    def doubts(self, row: Row) -> str:
        """Return what is doubtful about a row, or an empty text."""
        return _DOUBTFUL.get((self.number, row.get("method", ""), row.get("retention", 0)), "")


def table_numbers() -> tuple[str, ...]:
    """Return the numbers of the tables that are there."""
    return tuple(name.removeprefix("table") for name in _read())


def read_table(number: str) -> PaperTable:
    """Return a table.

    Raises:
        InputError: there is no such table.
    """
    if number not in table_numbers():
        raise InputError(f"table {number!r}: expected one of {', '.join(table_numbers())}")
    table = _read()[f"table{number}"]
    return PaperTable(number, table["title"], tuple(table["rows"]))


def recompute_averages(table: PaperTable) -> list[tuple[Row, float, float]]:
    """Return each row with its printed and its recomputed average, for tables that have one.

    Tables 1, 2 and 7 average ratios to the full model in percent, table 1 without its column of means;
    table 3 averages scores, table 6 the cells that are there.
    """
    if table.number in _RATIOS:
        full, columns = table.rows[0], _RATIOS[table.number]
        shares = [[100 * row[c] / full[c] for c in columns if row.get(c) is not None] for row in table.rows]
        printed = [row["avg_percent"] for row in table.rows]
    elif table.number in ("3", *_MEANS):
        columns = _MEANS.get(table.number) or tuple(c for c in table.rows[0] if c not in _NOT_SCORES)
        shares = [[row[c] for c in columns if row[c] is not None] for row in table.rows]
        printed = [row["avg"] for row in table.rows]
    else:
        return []
    means = [sum(values) / len(values) for values in shares]
    return list(zip(table.rows, printed, means, strict=True))


def reproduce_flops() -> list[dict[str, Any]]:
    """Compute table 5 from the paper's equations, beside what is printed.

    Returns:
        For each row `method`, `retention` (percent), `printed_tflops`, `tflops` and a `note` that says what
        the number is made of and, where it is not the printed one within rounding, why. The compressor's own
        cost depends on the tokens after the spatial step, which the paper does not print: it is computed with
        as many as there are in the end, the fewest possible, and the note says how many the print implies.
    """
    table = read_table("5")
    return [
        {
            "method": row["method"],
            "retention": row["retention"],
            "printed_tflops": row["tflops"],
            **_explain(table, row),
        }
        for row in table.rows
    ]


def _explain(table: PaperTable, row: Row) -> dict[str, Any]:
    geometry, method, printed = published_geometry("7b"), row["method"], row["tflops"]
    num_input = NUM_FRAMES * geometry.tokens_per_frame
    num_kept = budget(row["retention"] / 100, num_input)
    notes = [table.doubts(row)]
    if method == "DyCoke" and row["retention"] == 50:
        num_kept = _DYCOKE_TOKENS_AT_50
        notes.append(f"with the {num_kept} tokens that its code keeps")
    if method == "FastV":
        count = paper_flops(geometry, num_kept, num_full_layers=_NUM_PRUNING_LAYERS, num_full=num_input).total
        notes.append(f"first {_NUM_PRUNING_LAYERS} layers with all tokens")
    elif method == "LLaVA-Scissor":
        language = paper_flops(geometry, num_kept).total
        count = language + paper_compression_flops(geometry, NUM_FRAMES, num_kept, num_kept)
        notes.append(f"language model {language:.2f}")
        notes.append(_implied_spatial(printed, language, num_kept, num_input))
    else:
        count = paper_flops(geometry, num_kept).total
    if abs(count - printed) > 0.05 and method != "LLaVA-Scissor":
        notes.append(
            f"the equations give {count:.2f}, {abs(count - printed):.2f} from the print: not explained"
        )
    return {"tflops": round(count, 3), "note": "; ".join(note for note in notes if note)}


def _implied_spatial(printed: float, language: float, num_kept: int, num_input: int) -> str:
    """Say how many tokens after the spatial step lead to the printed sum within its rounding."""
    geometry = published_geometry("7b")
    fits = [
        num_spatial
        for num_spatial in range(num_kept, num_input + 1)
        if abs(language + paper_compression_flops(geometry, NUM_FRAMES, num_spatial, num_kept) - printed)
        <= 0.05
    ]
    if not fits:
        return "no number of tokens after the spatial step leads to the print"
    return f"printed for {fits[0]} to {fits[-1]} tokens after the spatial step"


@cache
def _read() -> dict[str, Any]:
    return yaml.safe_load((files("llava_scissor.paper") / "tables.yaml").read_text(encoding="utf-8"))
