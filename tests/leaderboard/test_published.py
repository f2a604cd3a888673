"""Published numbers as data: a mean equals its cells, a copy its original, every row has a source; and how they are
shown: contradictions side by side, contested cells, a consensus that tables carry."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from harness.records.published import FOLDERS, MEAN, NOT_STATED, UNPRUNED, Printing, cells, printings
from harness.report.blocks import Heading, Table
from leaderboard.agreement import consensus, spreads
from leaderboard.papers import csv_of, sources, with_baselines
from leaderboard.views.published import blocks, side_by_side

NUMBERS = printings()
WITHIN = 0.35  # points, of a printed mean from its cells as printed
SCORES = ("%", "points", "% (of 1000)")


def of(numbers=NUMBERS, **wanted: object) -> list[Printing]:
    return [number for number in numbers if all(getattr(number, name) == value for name, value in wanted.items())]


def from_source(words: str) -> list[Printing]:
    return [number for number in NUMBERS if number.source.name.startswith(words)]


# every row has a source


def test_every_number_has_a_source_that_is_told_and_every_source_a_number():
    assert len(NUMBERS) == 8494
    named = {line.split('",')[0].strip('"') for line in (FOLDERS[0] / "sources.csv").read_text().splitlines()[1:]}
    assert len(named) == len({number.source for number in NUMBERS}) == 44
    for source in {number.source for number in NUMBERS}:
        assert source.address == "not found" or source.address.startswith("https://"), source
        assert source.read, source


def test_no_number_stands_twice_for_one_table():
    places = Counter(
        (n.method, n.model, n.benchmark, n.metric, n.split, n.unit, n.budget, n.source.name, n.where) for n in NUMBERS
    )
    assert [place for place, count in places.items() if count > 1] == []


def test_a_table_has_one_unpruned_row_and_it_alone_is_a_baseline():
    for number in NUMBERS:
        assert (number.run_kind == "baseline") == (number.budget_kind == "unpruned"), number
        assert number.budget_kind != "unpruned" or number.method == UNPRUNED, number


# a mean equals its rows, or says which mean it is


def tables_of(numbers) -> dict[tuple[str, str, str], dict[tuple[str, str], list[Printing]]]:
    """(source, table, model) -> (method, budget) -> its scores."""
    found: dict = defaultdict(lambda: defaultdict(list))
    for one in numbers:
        if one.benchmark != MEAN and one.unit in SCORES and one.file != "latency-flops":
            found[one.source.name, one.table, one.model][one.method, one.budget].append(one)
    return found


def on_a_scale_of_100(one: Printing) -> float:
    if one.benchmark == "MME":
        return one.value / 20
    return one.value / 10 if (one.benchmark, one.unit) == ("OCRBench", "points") else one.value


def recomputed(mean: Printing, tables) -> float:
    """The mean that the metric names, over the table's cells as printed."""
    table = tables[mean.source.name, mean.table, mean.model]
    left_out = re.search(r"without ([^;]+)", mean.caveat)
    out = left_out[1].split(" and ") if left_out else []
    row = [one for one in table[mean.method, mean.budget] if one.benchmark not in out]
    if mean.metric == "mean of scores":
        return sum(map(on_a_scale_of_100, row)) / len(row)
    unpruned = {(one.benchmark, one.metric): one for own in table.values() for one in own if one.run_kind == "baseline"}
    pairs = [(one, unpruned[one.benchmark, one.metric]) for one in row if (one.benchmark, one.metric) in unpruned]
    if mean.metric == "mean of ratios":
        return 100 * sum(one.value / start.value for one, start in pairs) / len(pairs)
    assert mean.metric == "ratio of mean scores", mean
    return 100 * sum(on_a_scale_of_100(one) for one, _ in pairs) / sum(on_a_scale_of_100(one) for _, one in pairs)


def off(numbers) -> list[Printing]:
    """Means that are not what they say they are."""
    tables = tables_of(numbers)
    wrong = []
    for mean in of(numbers, benchmark=MEAN):
        if "cannot be recomputed: " in mean.caveat:
            continue
        value = recomputed(mean, tables)
        said = re.search(r"its own cells give ([\d.]+)", mean.caveat)
        if said is None and abs(value - mean.value) > WITHIN:
            wrong.append(mean)
        if said is not None and (abs(value - float(said[1])) > 0.051 or abs(value - mean.value) <= WITHIN):
            wrong.append(mean)
    return wrong


def test_a_mean_equals_its_cells_or_says_what_they_give():
    means = of(benchmark=MEAN)
    assert off(NUMBERS) == []
    assert (len(means), sum("cannot be recomputed" in one.caveat for one in means)) == (960, 174)
    assert sum("its own cells give" in one.caveat for one in means) == 8


def test_a_wrong_mean_is_found():
    (mean,) = [one for one in from_source("RESTORE") if (one.benchmark, one.method, one.budget, one.table) == (
        MEAN, "fastv", "64 tokens", "Table 1")]  # fmt: skip
    swapped = [replace(one, value=one.value + 1) if one is mean else one for one in NUMBERS]
    assert [one.source.name for one in off(swapped)] == [mean.source.name]


def test_quietprune_s_ra_is_the_ratio_of_its_mean_accuracies():
    table = {(n.method, n.metric): n.value for n in of(file="quietprune", where="table of InternVL3-1B")}
    full = table[UNPRUNED, "accuracy"], table[UNPRUNED, "prefill latency"]
    for method in ("fastv", "pact", "divprune"):
        assert table[method, "RA"] == pytest.approx(100 * table[method, "accuracy"] / full[0], abs=0.06)
        assert table[method, "LR"] == pytest.approx(100 * (1 - table[method, "prefill latency"] / full[1]), abs=0.06)


# a copy equals its original


def altered(numbers) -> list[tuple[Printing, float]]:
    """Copies that are neither the original's value nor say what it is; without the original, most other copies'."""
    wrong = []
    for cell in cells(numbers):
        for copy in of(cell.printings, run_kind="copy"):
            originals = [one.value for one in cell.printings if one.source.name == copy.copied_from]
            same = [one.value for one in cell.printings if one.copied_from == copy.copied_from]
            if cell.benchmark == MEAN or copy.copied_from == NOT_STATED:
                continue
            counts = Counter(same).most_common()
            most = [value for value, count in counts if count == counts[0][1]]
            rounded = bool(originals) and abs(originals[0] - copy.value) < 0.051
            fits = rounded if originals else most == [copy.value]
            expected = originals[0] if originals else next((one for one in most if one != copy.value), copy.value)
            if not fits and not re.search(rf"prints? {expected:g}(\.0)?$", copy.caveat):
                wrong.append((copy, expected))
    return wrong


def test_a_copy_equals_its_original_or_says_what_that_prints():
    assert altered(NUMBERS) == []
    assert len(of(run_kind="copy")) == 1805
    told = [one for one in NUMBERS if re.search(r"(original|copies|copy) prints? [\d.]+$", one.caveat)]
    assert len(told) == 36 and all(one.run_kind == "copy" for one in told)


def test_an_altered_copy_is_found():
    copy = next(one for one in NUMBERS if one.copied_from.startswith("DART") and one.source.name.startswith("SIEVE"))
    changed = [replace(one, value=one.value + 1) if one is copy else one for one in NUMBERS]
    assert [one.where for one, _ in altered(changed)] == [copy.where]


def test_copies_and_what_was_read_in_anothers_text_are_second_hand():
    assert all(number.second_hand for number in of(run_kind="copy"))
    assert all(number.second_hand for number in NUMBERS if "as quoted in" in number.source.name)
    assert not any(number.second_hand for number in of(where="README.md"))


# single facts


def test_fastv_at_64_tokens_keeps_all_its_printings_and_the_fault_its_caveat():
    (cell,) = [
        cell
        for cell in cells(of(method="fastv", model="LLaVA-1.5-7B", benchmark="POPE", metric="F1", budget="64 tokens"))
        if cell.unit == "%"
    ]
    assert Counter(one.value for one in cell.printings) == {48.0: 10, 59.6: 1, 35.5: 1, 36.1: 1, 37.2: 1}
    assert all(one.run_kind == "copy" for one in cell.printings if one.value == 48.0)
    assert {one.run_kind for one in cell.printings if one.value < 40} == {"rerun", "unclear"}
    words = side_by_side(cell)
    assert (
        "59.6 copy: Nüwa paper (the 128-token value printed again; every other copy of this row prints 48.0)" in words
    )
    assert "36.1 re-run: RESTORE" in words and "DART, DiffPrune, EvoCut" in words


def test_a_budget_says_what_it_counts():
    kept = {one.budget_kind for one in from_source("FasterVLM") if one.method == "fastv"}
    assert kept == {"kept_after_layer"}
    assert {one.budget_kind for one in NUMBERS if one.method == "divprune"} == {
        "interface_kept",
        "unclear",
        "layer_average",
    }
    assert {one.budget_kind for one in of(method="fastv", budget="64 tokens")} == {"unclear"}


def test_vprune_is_there_in_full_and_its_ratio_is_never_called_kept():
    own = of(file="vprune")
    assert len(own) == 4 * 8 + 4 * 8 + 3 * 8 + 3 * 3 * 8 + 2 * 2 * 4 + 3 * 4
    (crpe,) = [one for one in own if (one.where, one.method, one.benchmark, one.metric) == (
        "main table", "vprune", "CRPE", "accuracy")]  # fmt: skip
    assert crpe.value == 86.43
    ratios = [number for number in own if "ratio" in number.metric]
    assert ratios and all("pruned, not kept" in number.caveat for number in ratios)
    assert any("stands in no POPE row" in number.caveat for number in own)


def test_quietprune_is_second_hand_but_for_its_abstract_and_names_a_machine_at_latencies_only():
    own = of(file="quietprune")
    assert [one.where for one in own if not one.second_hand] == ["abstract", "abstract"]
    assert {one.metric for one in own if one.hardware != NOT_STATED} == {"LR", "prefill latency"}
    assert all("disagree" in one.caveat for one in own if one.where == "headline results")


# the page


def test_a_spread_counts_only_sources_that_start_alike():
    by_cell = {(one.cell.method, one.cell.benchmark, one.cell.budget): one for one in spreads(of(model="LLaVA-1.5-7B"))}
    mmbench = by_cell["fastv", "MMBench", "64 tokens"]
    assert (mmbench.low, mmbench.high) == (48.0, 51.4)  # IDPruner's 47.08 starts from 62.2 instead of 64.7
    assert any(one.value == 47.08 for one in mmbench.cell.printings) and mmbench.contested
    assert not by_cell["divprune", "GQA", "64 tokens"].contested


def test_methods_inside_the_llm_are_contested_most():
    count = Counter(one.cell.method for one in spreads(of(model="LLaVA-1.5-7B")) if one.contested)
    assert {method for method, _ in count.most_common(3)} == {"tome", "fastv", "pyramiddrop"}
    assert count["visionzip"] <= 2 and count["vispruner"] == 0


def duel(source: str, *rows: tuple[str, str, tuple[float, ...]]) -> list[Printing]:
    """A table of one source: method, kind of run, its values in three columns; the unpruned row is 100 each."""
    some = replace(NUMBERS[0], model="m", unit="%", metric="accuracy", where="Table 1", caveat="", copied_from="")
    unpruned = (UNPRUNED, "baseline", (100, 100, 100))
    return [
        replace(some, source=replace(some.source, name=source), method=method, run_kind=kind, benchmark=name,
                value=value, budget="all" if kind == "baseline" else "64 tokens")
        for method, kind, values in (unpruned, *rows)
        for name, value in zip("abc", values, strict=False)
    ]  # fmt: skip


def test_a_consensus_counts_tables_not_points_and_leaves_own_methods_and_copies_out():
    tables = [
        duel(
            f"source {at}",
            ("first", "rerun", (80, 80, 80)),
            ("second", "unclear", (79, 79, 79 if at else 10)),
            ("ours", "own", (99, 99, 99)),
            ("copied", "copy", (98, 98, 98)),
            ("narrow", "rerun", (97, 97)),
        )
        for at in range(6)
    ]
    (places,) = consensus([one for table in tables for one in table]).values()
    assert [(one.method, one.beaten, one.won, one.duels) for one in places] == [("first", 1, 6, 6), ("second", 0, 0, 6)]
    assert consensus([one for table in tables[:5] for one in table]) == {}  # five duels


def test_the_consensus_of_the_llava_tables_is_that_of_the_analysis():
    order = [place.method for place in consensus(NUMBERS)["LLaVA-1.5-7B", "64 tokens"]]
    assert order[:4] == ["scope", "cdpruner", "visionselector", "mmtok"]
    assert order[-3:] == ["sparsevlm", "fastv", "pyramiddrop"] and len(order) == 17


def test_the_page_has_spread_contested_cells_and_consensus_before_the_sources():
    fastv = of(method="fastv", model="LLaVA-1.5-7B")
    shown = list(blocks(fastv, NUMBERS))
    headings = [block.text for block in shown if isinstance(block, Heading)]
    assert headings == ["Spread of printings", "Contested cells", "Consensus per budget", "Source by source"]
    spread, contested, places = [block for block in shown if isinstance(block, Table)]
    assert {row[1] for row in contested.rows} == {"fastv"} and len(contested.rows) >= 20
    assert {row[0] for row in places.rows} == {"LLaVA-1.5-7B"}
    assert all(len(row) == len(table.columns) for table in (spread, contested, places) for row in table.rows)


def test_numbers_that_nobody_else_prints_have_neither_spread_nor_consensus():
    alone = of(file="vprune")
    headings = [block.text for block in blocks(alone, NUMBERS) if isinstance(block, Heading)]
    assert headings == ["Source by source"]


def test_a_table_has_benchmarks_across_unless_that_leaves_it_empty():
    numbers = of(where="main table", file="vprune")
    table = str(sources(numbers))
    assert ">benchmark</th>" in table and table.count("<tr>") == 1 + 32 and table.count(">–<") == 8
    crpe = of(numbers, benchmark="CRPE", metric="accuracy")
    narrow = str(sources(crpe))
    assert ">CRPE, %</th>" in narrow and ">benchmark</th>" not in narrow


def test_a_row_tells_its_kind_of_run_its_original_and_what_its_budget_counts():
    table = str(sources([one for one in from_source("HoloV") if one.table == "Table 1"]))
    assert ">copy of SparseVLM</td>" in table and ">own</td>" in table
    assert ">64 tokens (at the interface)</td>" in table and ">64 tokens (of what: unclear)</td>" in table
    assert 'href="https://arxiv.org/abs/2510.02912"' in table


@pytest.mark.parametrize(("source", "table"), [("MMTok", "Table 21"), ("DART", "Table 1")])
def test_unpruned_rows_come_along_from_the_same_table_only(source: str, table: str):
    chosen = [one for one in from_source(source) if one.table == table and one.method != UNPRUNED]
    known = {id(number) for number in chosen}
    more = [number for number in with_baselines(chosen, NUMBERS) if id(number) not in known]
    assert more and {(n.method, n.source, n.table) for n in more} == {(UNPRUNED, chosen[0].source, table)}


def test_the_csv_holds_every_number_its_source_and_address():
    lines = csv_of(NUMBERS[:2]).splitlines()
    assert len(lines) == 3 and lines[0].startswith("method,model,benchmark") and lines[0].endswith(",address")
    assert NUMBERS[0].method in lines[1] and lines[1].endswith(NUMBERS[0].source.address)


def test_first_hand_sources_stand_first_and_second_hand_numbers_are_counted():
    own = of(where="README.md", method="fastv")[:2]
    name = {kind: replace(own[0].source, name=kind) for kind in ("somebody", "mixed")}
    told = [replace(number, second_hand=True, source=name["somebody"]) for number in own]
    mixed = [replace(told[0], source=name["mixed"]), replace(own[1], source=name["mixed"], method="pact")]
    parts = str(sources([*told, *mixed, *own])).split("<details")
    assert [part.partition("<b>")[2].partition("</b>")[0] for part in parts[1:]][-1] == "somebody"
    assert sum("1 second-hand" in part for part in parts) == 1 and ">second-hand</span>" in parts[-1]
