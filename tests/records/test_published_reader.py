"""The reader of published numbers: what a row must hold, and what a cell gathers."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.records.errors import HarnessError
from harness.records.published import COLUMNS, cells, printings

SOURCES = "name,address,title,read\nsome paper,not found,A paper,its text\nanother,https://a.b,Another,its text\n"
ROW = {
    "method": "fastv", "model": "m", "benchmark": "b", "metric": "accuracy", "split": "val", "value": "50.5",
    "unit": "%", "budget_kind": "unclear", "budget": "64 tokens", "hardware": "not stated", "source": "some paper",
    "where": "Table 1", "run_kind": "rerun", "copied_from": "", "second_hand": "no", "caveat": "",
}  # fmt: skip


def folder_of(folder: Path, *rows: dict[str, str], head: str = ",".join(COLUMNS)) -> Path:
    (folder / "sources.csv").write_text(SOURCES)
    lines = [",".join((ROW | row)[name] for name in COLUMNS) for row in rows]
    (folder / "x.csv").write_text("\n".join([head, *lines]) + "\n")
    return folder


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"source": ""}, "line 2: source missing; write 'not stated'"),
        ({"source": "hearsay"}, "line 2: 'hearsay' has no line in sources.csv"),
        ({"second_hand": "perhaps"}, "line 2: second_hand is one of yes, no, got 'perhaps'"),
        ({"run_kind": "quoted"}, "run_kind is one of own, rerun, copy, unclear, baseline"),
        ({"budget_kind": "tokens"}, "budget_kind is one of unpruned, layer_average"),
        ({"run_kind": "copy"}, "a copy, and nothing else, names its original"),
        ({"copied_from": "another"}, "a copy, and nothing else, names its original"),
        ({"value": "high"}, "the value is a number, got 'high'"),
        ({"caveat": "one,two"}, "more cells than columns"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_with_its_line(tmp_path: Path, change: dict[str, str], told: str):
    with pytest.raises(HarnessError, match=told):
        printings(folder_of(tmp_path, change))


def test_other_columns_are_refused(tmp_path: Path):
    with pytest.raises(HarnessError, match="expected the columns method, model"):
        printings(folder_of(tmp_path, head="method,value"))


def test_a_cell_holds_contradicting_printings_with_their_sources_and_kinds(tmp_path: Path):
    copy = {"source": "another", "value": "40", "run_kind": "copy", "copied_from": "some paper", "second_hand": "yes"}
    (cell, other) = cells(printings(folder_of(tmp_path, {}, copy, {"split": "test"})))
    assert [(one.value, one.run_kind, one.source.name) for one in cell.printings] == [
        (50.5, "rerun", "some paper"), (40.0, "copy", "another"),
    ]  # fmt: skip
    assert cell.spread == 10.5 and other.spread == 0 and other.split == "test"
    assert cell.printings[1].source.address == "https://a.b" and cell.printings[1].second_hand


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("64 tokens", 64),
        ("22.2 %", 0.222),
        ("0 tokens", 0),
        ("71.3 % reduction at layer 4", None),
        ("ratio 20 %", None),
    ],
)
def test_a_budget_has_a_value_only_where_it_is_tokens_or_a_share_kept(tmp_path: Path, words: str, value: float | None):
    (number,) = printings(folder_of(tmp_path, {"budget": words}))
    assert number.budget_value == (None if value is None else pytest.approx(value))
    assert isinstance(number.budget_value, type(value))


def test_a_line_is_no_table_of_its_own(tmp_path: Path):
    places = ("EVAL.md line 130", "docs/index.html lines 309-319", "Table 12")
    numbers = printings(folder_of(tmp_path, *({"where": place} for place in places)))
    assert [number.table for number in numbers] == ["EVAL.md", "docs/index.html", "Table 12"]
