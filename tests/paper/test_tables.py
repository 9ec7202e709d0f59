from __future__ import annotations

import pytest

from llava_scissor.errors import InputError
from llava_scissor.paper.tables import read_table, recompute_averages, reproduce_flops, table_numbers

ROUNDING = 0.05
# Averages that do not come out of the printed cells within rounding.
UNEXPLAINED = {
    ("1", "DyCoke", 50): 99.37,
    ("1", "PLLaVA", 50): 99.61,
    ("2", "LLaVA-Scissor", 5): 92.68,
    ("6", "PACT", 35): 98.83,
}


def test_every_table_is_there() -> None:
    assert table_numbers() == ("1", "2", "3", "5", "6", "7", "4a", "4b")
    with pytest.raises(InputError, match="table '8': expected one of 1, 2, 3"):
        read_table("8")


@pytest.mark.parametrize("number", ["1", "2", "3", "6", "7"])
def test_averages_come_out_of_the_printed_cells(number: str) -> None:
    table = read_table(number)
    averages = recompute_averages(table)
    assert len(averages) == len(table.rows)
    for row, printed, again in averages:
        expected = UNEXPLAINED.get((number, row["method"], row["retention"]))
        if expected is None:
            assert again == pytest.approx(printed, abs=ROUNDING + 0.005), row
        else:
            assert again == pytest.approx(expected, abs=0.01)
            assert abs(again - printed) > ROUNDING


def test_tables_without_an_average_have_none_made_up() -> None:
    assert [n for n in table_numbers() if not recompute_averages(read_table(n))] == ["5", "4a", "4b"]


def test_flops_are_the_printed_ones_or_explained() -> None:
    rows = reproduce_flops()
    assert len(rows) == len(read_table("5").rows)
    for row in rows:
        assert set(row) == {"method", "retention", "printed_tflops", "tflops", "note"}
        is_equal = abs(row["tflops"] - row["printed_tflops"]) <= ROUNDING
        assert (
            is_equal
            or "printed for" in row["note"]
            or "from the print" in row["note"]
            or row["retention"] == 50
        )
    by_name = {(row["method"], row["retention"]): row for row in rows}
    assert by_name["LLaVA-OneVision", 100]["tflops"] == pytest.approx(41.416, abs=0.001)
    assert by_name["VisionZip", 10]["tflops"] == pytest.approx(3.90, abs=0.005)
    assert by_name["DyCoke", 50]["tflops"] == pytest.approx(18.7, abs=ROUNDING)
    assert "7.0 %" in by_name["LLaVA-Scissor", 7]["note"]
    assert "no number of tokens" in by_name["LLaVA-Scissor", 50]["note"]
    assert "5320 to 6272 tokens" in by_name["LLaVA-Scissor", 35]["note"]


def test_doubtful_cells_are_named() -> None:
    table = read_table("6")
    doubted = [row["method"] for row in table.rows if table.doubts(row)]
    assert doubted == ["VisionZip", "PACT"]
