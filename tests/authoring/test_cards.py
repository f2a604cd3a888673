"""Cards say what the classes say, the page has one of each method, and the verdict is the paired difference."""

from dataclasses import replace
from pathlib import Path

import pytest
from logged_runs import FIGURES, HERE, record, spec

import methods
from harness.authoring.cards import MODELS, board_ra, card_of, entry, golden_counts, placed
from harness.records.controls import CONTROLS
from harness.records.records import FULL
from harness.report.compare import verdicts
from harness.store.database import Store
from harness.store.log_writer import RunLog
from methods.base import Shape

NOT_ON_THE_BOARD = {"random_pre_tokenization", "random_in_vit", "random_in_llm"}  # since `make results` ran last
PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


@pytest.mark.parametrize("name", methods.names())
def test_every_card_names_hook_points_cost_source_and_departures(name):
    card = card_of(methods.get(name))
    assert card.summary.endswith(".")
    assert name == "full" or (card.hooks and card.cost)
    assert name in (FULL, *CONTROLS) or (card.paper and card.licence and card.sections["Departures"])


@pytest.mark.parametrize("name", methods.names())
def test_the_page_has_the_card_as_it_is_now(name):
    """The golden files' line aside, which takes their check: `harness validate --golden` has its own tests."""
    lines = [line for line in entry(card_of(methods.get(name))).splitlines() if line]
    assert set(lines) <= set(PAGE.read_text().splitlines()), (
        "python -m harness.authoring.cards --write docs/methods.md ..."
    )


def test_the_page_shows_what_the_submitted_board_says():
    board = board_ra(PAGE.parents[1] / "results")
    assert {"random", "grid", "pool", "divprune"} <= set(board) <= set(methods.names()) - {FULL}
    rows = {line.split("]")[0].removeprefix("| ["): line for line in PAGE.read_text().splitlines() if "](#" in line}
    for method, found in board.items():
        assert set(found) == {"reference-a", "reference-b"}
        assert all(spelled in rows[method] for spelled in found.values()), (
            "python -m harness.authoring.cards --write ... --results"
        )
    for method in set(methods.names()) - set(board):
        assert rows[method].endswith("| – | – |"), "no run of it was submitted"


def test_fastv_is_placed_where_its_two_of_thirty_two_layers_fall():
    on_llava = card_of(methods.get("fastv")).placements["llava-1.5-7b"]
    assert on_llava.sites == {"in-llm:2": round((32 * 288 - 2 * 576) / 30)}
    assert on_llava.signals == ("rows of last queries in llm layer 1",)
    assert on_llava.floor == 36  # two of 32 layers see all 576


def test_a_method_that_cannot_reach_half_says_why():
    shallow = placed(methods.build("fastv", k=31), replace(MODELS["reference-a"], llm_layers=32))
    assert "raise --budget" in shallow.infeasible and shallow.floor == 62


def test_golden_files_are_counted_by_method(tmp_path):
    source = Path(__file__).parents[1] / "golden"
    some = ("divprune_n64_k16.npz", "vispruner_fragile_n576_t64_r050.npz", "fastv_weights_m1_L6_H4_KV4.npz")
    for name in (*some, "tome_r_schedules.npz"):  # whose name begins as those of tome's other kind do too
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "divprune_broken.npz").write_bytes(b"")
    assert golden_counts(tmp_path) == {
        "divprune": {"pass": 1, "fail": 1},
        "vispruner": {"not_assertable": 1},
        "tome": {"pass": 1},
    }


def _finished(folder: Path, right: int, **changes) -> None:
    """A run whose first `right` of 40 samples are right, each of an image of its own."""
    run = spec(**changes)
    with RunLog.open(folder / f"{run.run_id}.jsonl", run, HERE) as log:
        for number in range(40):
            log.append(replace(record(number), cluster=f"image-{number}", score=float(number < right)))
        log.finish(FIGURES)


def test_a_verdict_averages_random_over_its_seeds_sample_by_sample(tmp_path):
    _finished(tmp_path / "s.runs", 36)
    _finished(tmp_path / "s.runs", 10, method="random", settings={}, seed=0)
    _finished(tmp_path / "s.runs", 20, method="random", settings={}, seed=1)
    store = Store(tmp_path / "s.duckdb")
    store.rebuild()
    (verdict,) = verdicts(store, "divprune")
    assert verdict["over_random"] == pytest.approx((36 - 15) / 40)
    assert verdict["low"] > 0 and verdict["verdict"] == "yes"
    assert verdicts(store, "random") == []


def test_without_a_random_run_there_is_no_verdict(tmp_path):
    _finished(tmp_path / "s.runs", 36)
    store = Store(tmp_path / "s.duckdb")
    store.rebuild()
    assert verdicts(store, "divprune") == []


def test_floors_of_the_page_are_those_of_the_shape():
    tiny = Shape(((2, 2),), 8, 16)
    assert placed(methods.build("grid"), tiny).floor == 1
