"""Print a table of the paper with what can be computed about it: `python scripts/reproduce.py --table 5`.

Table 5 (FLOPs) is computed from the paper's equations. Of the others, the averages are computed again.
"""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from rich.table import Table

from llava_scissor.evaluation.paper import (
    read_table,
    recompute_averages,
    reproduce_flops,
    table_numbers,
)


def main() -> None:
    """Parse the options and print the table, or one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", required=True, choices=table_numbers(), help="number in the paper")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    options = parser.parse_args()
    table = read_table(options.table)
    rows = reproduce_flops() if options.table == "5" else _with_averages(options.table)
    if options.json:
        print(json.dumps({"table": options.table, "title": table.title, "rows": rows}))
        return
    shown = Table(title=f"Table {options.table}: {table.title}")
    for column in rows[0]:
        shown.add_column(column)
    for row in rows:
        shown.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(shown)


def _with_averages(number: str) -> list[dict]:
    table = read_table(number)
    again = {id(row): round(mean, 2) for row, _, mean in recompute_averages(table)}
    return [
        {**row, **({"recomputed": again[id(row)]} if again else {}), "note": table.doubts(row)}
        for row in table.rows
    ]


if __name__ == "__main__":
    main()
