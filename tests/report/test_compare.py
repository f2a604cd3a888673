"""`harness compare`: verdicts in words, exit codes, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import Command, commands_in
from stored_runs import add_run, arm, new_store

from harness.records.errors import UsageError
from harness.report.compare import find_pair, samples_of, versus
from harness.store.database import Store

RIGHT = [1.0] * 60


@pytest.fixture(scope="module")
def four_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No pruning: all of 60 right; worse: 12 lost; same: all right with the same answers; near: one lost."""
    made = new_store(tmp_path_factory.mktemp("four"))
    full = add_run(made, arm("full"), RIGHT)
    add_run(made, arm("worse"), [0.0] * 12 + [1.0] * 48, full)
    add_run(made, arm("same"), RIGHT, full)
    add_run(made, arm("near"), [0.0] + [1.0] * 59, full)
    return made.path.parent


@pytest.fixture
def store(four_runs: Path, tmp_path: Path) -> Store:
    return new_store(shutil.copytree(four_runs, tmp_path, dirs_exist_ok=True))


@pytest.fixture
def harness(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    return commands_in(tmp_path, monkeypatch, capsys)


def compared(store: Store, a: str, b: str):
    pair = find_pair(store, a, b)
    return versus(*pair, samples_of(store, pair))


def test_a_worse_method_by_hand(store: Store):
    """12 of 60 lost: 20 points, RA 80 %, McNemar 2 / 2^12, and 48 answers of 60 unchanged."""
    found = compared(store, "full", "worse:50%")
    assert found.difference.value == pytest.approx(-0.2)
    assert (found.ra.value, found.loyal.value) == pytest.approx((0.8, 0.8))
    assert (found.flips.lost, found.flips.gained, found.p) == (12, 0, 2 / 2**12)
    assert found.difference.high < 0
    assert found.verdict == "worse:50% is worse than full"


def test_the_other_way_round_it_is_better(store: Store):
    found = compared(store, "worse", "full")
    assert found.difference.value == pytest.approx(0.2)
    assert (found.flips.lost, found.flips.gained) == (0, 12)
    assert found.verdict == "full is better than worse:50%"


def test_one_question_of_sixty_shows_no_difference_and_says_what_would_be_found(store: Store):
    found = compared(store, "full", "near")
    assert found.difference.low < 0 < found.difference.high
    assert found.verdict == f"no difference shown; one of {found.detectable * 100:.1f} points would be found " + (
        "four times in five"
    )


def test_identical_answers_are_no_difference(harness: Command):
    said = harness("compare", "full", "same", "--fail-below", "-0.5")
    assert said.code == 0
    assert "no difference: same:50% answers every question as full does" in said.out


def test_a_run_against_itself_is_no_difference(harness: Command):
    said = harness("compare", "worse", "worse", "--fail-below", "0")
    assert said.code == 0
    assert "no difference: both are run" in said.out


@pytest.mark.parametrize(("floor", "code"), [("-0.5", 1), ("-19.9", 1), ("-20.1", 0)])
def test_fail_below_is_in_points_of_accuracy(harness: Command, floor: str, code: int):
    said = harness("compare", "full", "worse", "--fail-below", floor)
    assert said.code == code
    assert "worse:50% is worse than full" in said.out
    assert ("-20.00 points is below" in said.err) == (code == 1)


def test_without_a_floor_a_worse_run_is_no_failure(harness: Command):
    assert harness("compare", "full", "worse").code == 0


def test_json_is_one_document(harness: Command):
    document = harness("compare", "full", "worse", "--json").document
    assert (document["a"]["method"], document["b"]["budget"]) == ("full", "50%")
    assert document["difference"]["value"] == pytest.approx(-0.2)
    assert document["flips"] == {"lost": 12, "gained": 0, "same": 48}
    assert document["verdict"].endswith("worse than full")


def test_runs_are_found_by_the_beginning_of_their_id(store: Store, harness: Command):
    ids = store.runs().set_index("method")["run_id"]
    assert harness("compare", ids["full"][:9], ids["near"][:9], "--json").document["b"]["run_id"] == ids["near"]
    assert find_pair(store, "full", "worse:0.5")[1]["method"] == "worse", "the budget in other words"


def test_other_samples_are_refused_and_what_differs_is_said(store: Store, harness: Command):
    add_run(store, arm("short", sample_ids="other", limit=6), RIGHT[:6], arm("full"))
    said = harness("compare", "full", "short")
    assert said.code == 2
    assert "did not answer the same samples: 60 samples (limit none) and 6 (limit 6)" in said.complaint
    add_run(store, arm("elsewhere", benchmark="pope", sample_ids="p"), RIGHT, arm("full"))
    assert "benchmark reference-suite and pope" in harness("compare", "full", "elsewhere").complaint


def test_an_unknown_run_is_a_usage_error(harness: Command):
    said = harness("compare", "full", "nothing")
    assert said.code == 2 and "no finished run 'nothing'" in said.complaint


def test_of_several_runs_the_one_with_the_same_samples_is_meant(store: Store):
    add_run(store, arm("worse", sample_ids="other", limit=6), RIGHT[:6], arm("full"))
    assert find_pair(store, "full", "worse")[1]["n"] == 60


def test_several_runs_that_fit_are_refused_with_ids(store: Store):
    add_run(store, arm("worse", seed=1), RIGHT, arm("full"))
    with pytest.raises(UsageError, match="fit 2 pairs of runs; give ids"):
        find_pair(store, "full", "worse")


def test_of_several_codes_the_newest_is_meant(store: Store):
    newer = add_run(store, arm("worse", code="n3w"), RIGHT, arm("full"))
    assert find_pair(store, "full", "worse")[1]["run_id"] == newer.run_id


def test_what_else_differs_is_said(store: Store, harness: Command):
    add_run(store, arm("eager", attention="eager", dtype="bfloat16"), RIGHT, arm("full"))
    said = harness("compare", "same", "eager")
    assert said.code == 0
    assert "dtype: float32 against bfloat16" in said.err and "attention: sdpa against eager" in said.err


def test_a_changed_setting_of_one_method_is_said(store: Store):
    runs = [add_run(store, arm("fastv", settings={"k": k}), RIGHT, arm("full")) for k in (2, 4)]
    assert "k: 2 against 4" in compared(store, runs[0].run_id, runs[1].run_id).notes


def test_a_changed_seed_is_said_except_for_no_pruning(store: Store):
    add_run(store, arm("lucky", seed=3), RIGHT, arm("full"))
    assert not any("seed" in note for note in compared(store, "full", "lucky").notes)
    assert "seed: 0 against 3" in compared(store, "same", "lucky").notes


def test_unequal_budgets_are_said(store: Store):
    add_run(store, arm("tight", budget_value=0.25), RIGHT, arm("full"), realised_tokens=16.0)
    assert "not at one budget: 32.0 visual tokens a layer against 16.0" in compared(store, "same", "tight").notes
