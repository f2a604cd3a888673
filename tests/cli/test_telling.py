"""The table of a run, from figures made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.telling import at_budget, by_layer, columns_of, print_comparison, rows_of, tell_next
from harness.records.figures import OK, Figures
from harness.records.run_spec import RunSpec
from harness.run.comparison import Comparison, Summary
from harness.stats import Interval

LR = {"latency_clock": "perf_counter_ns", "lr": -0.1, "lr_low": -0.2, "lr_high": 0.01, "indicative": True}


def summary(method: str, accuracy: float, **figures: object) -> Summary:
    budget = 1.0 if method == "full" else 0.5
    spec = RunSpec(
        method, {}, "m", "r", "b", "r", "layer_average", budget, 0, None, "ids", "float32", "sdpa", "pil", "cpu", "c"
    )
    made = Figures(
        OK, n=4, accuracy=accuracy, accuracy_low=accuracy - 0.1, accuracy_high=accuracy + 0.1, ra=accuracy / 0.8,
        full_tokens=64.0, asked_tokens=32.0, realised_tokens=31.5, flops_ratio=0.5, llm_flops_ratio=0.4, **figures,
    )  # fmt: skip
    return Summary(spec, made, (64.0, 31.25, 31.25), {"read": accuracy})


@pytest.fixture
def comparison() -> Comparison:
    timed = summary(
        "fastv", 0.6, base_ms={"vit": 3.0, "total": 10.0}, pruned_ms={"vit": 3.0, "select": 1.0, "total": 11.0}, **LR
    )
    over = Interval(0.1, 0.02, 0.18, 4, "t on clusters")
    return Comparison(timed, summary("full", 0.8), summary("random", 0.5), over)


def test_columns_are_unpruned_random_and_the_method(comparison: Comparison):
    assert list(columns_of(comparison)) == ["unpruned", "random 50%", "fastv 50%"]
    alone = Comparison(comparison.full, comparison.full, None, None)
    assert list(columns_of(alone)) == ["unpruned"]


def test_cells_are_percent_with_their_bounds(comparison: Comparison):
    rows = dict(rows_of(columns_of(comparison), comparison))
    assert rows["accuracy % [95 %]"] == ["80.0 [70.0, 90.0]", "50.0 [40.0, 60.0]", "60.0 [50.0, 70.0]"]
    assert rows["RA % [95 %]"] == ["100.0", "62.5", "75.0"]
    assert rows["points over random"] == ["–", "–", "10.0 [2.0, 18.0]"]
    assert rows["  realised"] == ["31.5"] * 3
    assert rows["  entering layers"][2] == "64 x1, 31.2 x2"


def test_the_unpruned_milliseconds_are_those_timed_beside_the_method(comparison: Comparison):
    rows = dict(rows_of(columns_of(comparison), comparison))
    assert rows["prefill, median ms"] == ["10.00", "–", "11.00"]
    assert rows["  select"] == ["–", "–", "1.00"]
    assert rows["LR %, time saved"] == ["–", "–", "-10.0 [-20.0, 1.0]"]
    assert rows["  indicative"] == ["–", "–", "yes"]


def test_every_row_has_a_cell_for_every_column(comparison: Comparison):
    alone = Comparison(comparison.full, comparison.full, None, None)
    for one in (comparison, alone):
        assert {len(cells) for _, cells in rows_of(columns_of(one), one)} == {len(columns_of(one))}


def test_the_table_fits_eighty_columns(comparison: Comparison, capsys: pytest.CaptureFixture[str]):
    widest = {"ra": 1.0, "ra_low": 0.9, "ra_high": 1.0, "recall_of_target": 1.0}
    full = comparison.full
    wide = replace(full, figures=replace(full.figures, **widest))
    columns = (replace(comparison.run, figures=replace(comparison.run.figures, **widest)), wide, wide)
    print_comparison(Comparison(*columns, comparison.over_random))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and "m · b · seed 0" in lines[0]
    rows = rows_of(columns_of(comparison), comparison)
    assert len(lines) == 2 + len(rows)  # nothing was broken over two lines
    assert any(line.count("100.0 [90.0, 100.0]") == 3 for line in lines)


def test_bounds_that_say_nothing_are_left_out(comparison: Comparison):
    full = replace(comparison.full, figures=replace(comparison.full.figures, ra=1.0, ra_low=1.0, ra_high=1.0))
    told = Comparison(comparison.run, full, comparison.random, comparison.over_random)
    assert dict(rows_of(columns_of(told), told))["RA % [95 %]"][0] == "100.0"


def test_a_negative_gain_is_said_in_words(comparison: Comparison, capsys: pytest.CaptureFixture[str]):
    tell_next(comparison, Path("s.duckdb"), ["run", "--method", "divprune", "--benchmark", "./mine.jsonl"])
    said = capsys.readouterr()
    assert "slower than no pruning" in said.err and "indicative" in said.err and said.out == ""
    assert "beats random: yes (+10.0 points, 95 % +2.0 to +18.0)" in said.err
    assert "next: harness run --method divprune --benchmark ./mine.jsonl --budget 25%\n" in said.err


def test_what_is_typed_next_differs_in_the_budget_alone():
    forced = ["run", "--budget", "50%", "--force", "--model", "m"]
    assert at_budget("25%", forced) == ["run", "--model", "m", "--budget", "25%"]
    assert at_budget("11%", ["run", "--budget=25%", "--seed", "1"]) == ["run", "--seed", "1", "--budget", "11%"]


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.01, 0.2, "yes"), (-0.2, -0.01, "no"), (-0.1, 0.1, "not distinguishable")]
)
def test_random_is_beaten_when_the_paired_interval_says_so(
    comparison: Comparison, low: float, high: float, verdict: str
):
    over = Interval(0.0, low, high, 4, "t on clusters")
    assert Comparison(comparison.run, comparison.full, comparison.random, over).beats_random == verdict
    assert Comparison(comparison.run, comparison.full, None, None).beats_random is None


def test_layers_of_equal_tokens_are_joined():
    assert by_layer((64.0, 20.0, 20.0, 5.5)) == "64 x1, 20 x2, 5.5 x1"
    assert by_layer(()) == "–"
