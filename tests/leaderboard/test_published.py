"""Printed numbers: every row has its source, and the specs' caveats stand beside the tables that need them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from harness.records.errors import HarnessError
from leaderboard.papers import FOLDERS, csv_of, printed, sources, with_baselines

NUMBERS = printed()


def test_every_number_has_a_source_and_its_conditions():
    assert len(NUMBERS) > 500
    for number in NUMBERS:
        assert number.source and number.hardware and number.budget and number.unit, number


def test_no_number_stands_twice_for_one_source():
    places = Counter((n.method, n.model, n.benchmark, n.metric, n.budget, n.source) for n in NUMBERS)
    assert [place for place, count in places.items() if count > 1] == []


def test_vprune_is_there_in_full_and_its_ratio_is_never_called_kept():
    own = [number for number in NUMBERS if number.file == "vprune"]
    assert len(own) == 4 * 8 + 4 * 8 + 3 * 8 + 3 * 3 * 8 + 2 * 2 * 4 + 3 * 4
    by_place = {(n.source.rpartition(", ")[2], n.method, n.benchmark, n.metric): n for n in own}
    crpe = by_place["main table", "vprune", "CRPE", "accuracy"]
    assert crpe.value == 86.43
    ratios = [number for number in own if "ratio" in number.metric]
    assert ratios and all("pruned, not kept" in number.caveat for number in ratios)
    assert any("stands in no POPE row" in number.caveat for number in own)


def test_quietprune_is_there_with_what_was_only_read_elsewhere_marked():
    own = {(n.model, n.method, n.metric): n for n in NUMBERS if n.file == "quietprune"}
    assert own["InternVL3-1B", "divprune", "LR"].value == -24.8
    assert not own["InternVL3-1B", "divprune", "LR"].second_hand
    assert own["InternVL3-1B", "quietprune", "RA"].second_hand
    assert "disagree" in own["InternVL3-1B", "quietprune", "LR"].caveat


def test_second_hand_numbers_are_marked():
    assert all(number.second_hand for number in NUMBERS if number.file == "llava-1.5-7b-tables")
    assert not any(number.second_hand for number in NUMBERS if "README of" in number.source)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("fastv,m,b,accuracy,1,%,50 %,A100,,no,", "line 2: every cell but the caveat is needed"),
        ("fastv,m,b,accuracy,1,%,50 %,A100,me,perhaps,", "line 2"),
    ],
)
def test_a_row_without_its_source_is_refused(tmp_path: Path, line: str, told: str):
    head = next(iter(FOLDERS[0].glob("*.csv"))).read_text().splitlines()[0]
    (tmp_path / "x.csv").write_text(f"{head}\n{line}\n")
    with pytest.raises(HarnessError, match=told):
        printed(tmp_path)


def test_other_columns_are_refused(tmp_path: Path):
    (tmp_path / "x.csv").write_text("method,value\nfastv,1\n")
    with pytest.raises(HarnessError, match="expected the columns method, model"):
        printed(tmp_path)


def test_a_table_has_benchmarks_across_unless_that_leaves_it_empty():
    numbers = [number for number in NUMBERS if number.source.endswith("main table")]
    table = str(sources(numbers))
    assert ">benchmark</th>" in table and table.count("<tr>") == 1 + 32 and table.count(">–<") == 8
    crpe = [number for number in numbers if number.benchmark == "CRPE"]
    narrow = str(sources([number for number in crpe if number.metric == "accuracy"]))
    assert ">CRPE, %</th>" in narrow and ">benchmark</th>" not in narrow


def test_unpruned_rows_come_along_from_the_same_table_only():
    chosen = [number for number in NUMBERS if number.method == "vprune" and number.source.endswith("main table")]
    more = [number for number in with_baselines(chosen, NUMBERS) if number not in chosen]
    assert more and {(n.method, n.source) for n in more} == {("none", chosen[0].source)}


def test_the_csv_holds_every_number_and_its_source():
    lines = csv_of(NUMBERS[:2]).splitlines()
    assert len(lines) == 3 and lines[0].startswith("method,model,benchmark") and NUMBERS[0].method in lines[1]


def test_first_hand_sources_stand_first_and_second_hand_numbers_are_counted():
    own = [number for number in NUMBERS if not number.second_hand][:2]
    told = [replace(number, second_hand=True, source="somebody") for number in own]
    mixed = [replace(told[0], source="mixed"), replace(own[1], source="mixed", method="pact")]
    parts = str(sources([*told, *mixed, *own])).split("<details")
    assert [part.partition("<b>")[2].partition("</b>")[0] for part in parts[1:]][-1] == "somebody"
    assert sum("1 second-hand" in part for part in parts) == 1 and ">second-hand</span>" in parts[-1]
