"""Presets by name, hard samples, the blind control and a user's questions, from the command line where it counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import Command, commands_over
from PIL import Image

from harness.benchmarks import names
from harness.benchmarks.suites import SUITES, find_suite
from harness.budget.spec import BudgetSpec
from harness.records.errors import UsageError
from harness.records.records import Record
from harness.request.request import Request
from harness.run.suite import hard_ids, judge, requests_of

FIXTURES = Path(__file__).parents[1] / "fixtures"
ASKED = Request("divprune", BudgetSpec.parse("50%"))


@pytest.fixture
def harness(
    suite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return commands_over(suite_folder, tmp_path, monkeypatch, capsys)


def record(name: str, score: float, error: str | None = None) -> Record:
    return Record(name, name, "", "yes", "", score, 12, 6, (6,), error=error)


def records(*scores: float) -> dict[str, Record]:
    return {str(place): record(str(place), score) for place, score in enumerate(scores)}


def test_every_preset_names_benchmarks_and_budgets_that_exist():
    assert {"smoke", "vprune", "quietprune", "llava15-classic", "ocr-dense", "hard"} <= set(SUITES)
    for suite in SUITES.values():
        assert set(suite.benchmarks) <= set(names())
        assert [BudgetSpec.parse(words) for words in suite.budgets]
        assert suite.models and suite.seen_in
    with pytest.raises(UsageError, match="nearest: vprune"):
        find_suite("vprunes")


def test_the_two_papers_have_their_own_sets():
    stems = {name.partition("_")[0] for name in SUITES["vprune"].benchmarks}
    assert stems == {"crpe", "ai2d", "abench", "aesbench", "hallusionbench", "pope", "aokvqa", "taskmeanything"}
    assert len(SUITES["quietprune"].benchmarks) == 6


def test_a_preset_is_a_product_and_what_the_user_names_replaces_its_part():
    suite = SUITES["llava15-classic"]
    whole = requests_of(suite, ASKED, set())
    assert len(whole) == len(suite.models) * len(suite.benchmarks) * 3
    assert {one.limit for one in requests_of(SUITES["smoke"], ASKED, set())} == {20}
    mine = requests_of(suite, ASKED, {"model", "budget", "benchmark"})
    assert [(one.model, one.benchmark, str(one.budget)) for one in mine] == [("reference-a", "reference-quick", "50%")]
    assert all(one.method == "divprune" for one in whole)


def test_hard_is_what_is_right_in_full_and_wrong_when_smaller():
    full, small = records(1.0, 1.0, 0.0, 0.6), records(0.0, 1.0, 0.0, 0.3)
    assert hard_ids(full, small) == ["0", "3"]
    small["0"] = record("0", 0.0, error="torn")
    assert hard_ids(full, small) == ["3"]  # nothing was answered, so nothing was wrong


def test_hard_samples_are_judged_for_the_method_and_for_random():
    full, small = records(1.0, 1.0, 1.0, 1.0), records(0.0, 0.0, 0.0, 1.0)
    judged = judge(2, full, small, records(1.0, 1.0, 0.0, 0.0), records(0.0, 0.0, 1.0, 1.0))
    assert (judged.factor, judged.n, judged.all) == (2, 3, 4)
    assert judged.accuracy is not None and judged.accuracy.value == pytest.approx(2 / 3)
    assert judged.random is not None and judged.random.value == pytest.approx(1 / 3)
    nothing = judge(3, full, records(1.0, 1.0, 1.0, 1.0), full, None)
    assert (nothing.n, nothing.accuracy, nothing.random) == (0, None, None)


def test_smoke_runs_offline_on_local_files(harness: Command):
    words = ("--data-dir", str(FIXTURES), "--no-timing")
    said = harness("run", "--suite", "smoke", "--method", "divprune", *words, "--json")
    assert said.code == 0, said.err
    told = said.document
    assert [run["benchmark"] for run in told["runs"]] == ["pope", "gqa", "textvqa_val", "ai2d"]
    assert all(run["status"] == "ok" and run["method"] == "divprune" for run in told["runs"])
    assert {"pope_accuracy", "pope_f1", "unparsed_ratio"} <= told["runs"][0]["metrics"].keys()
    assert told["runs"][0]["benchmark_revision"].startswith("files:")
    assert (
        told["summary"][0] | {"model": "reference-a", "budget": "50%", "benchmarks": 4, "of": 4} == told["summary"][0]
    )
    again = harness("run", "--suite", "smoke", "--method", "divprune", *words, "--stream")
    assert "to do" not in again.err  # nothing is answered twice
    assert "pope_accuracy" in again.out and "gqa_exact_match" in again.out


def test_hard_judges_a_method_against_two_downsamplings(harness: Command):
    said = harness("run", "--suite", "hard", "--method", "divprune", "--model", "reference-a",
                   "--benchmark", "reference", "--budget", "25%", "--no-timing", "--json")  # fmt: skip
    assert said.code == 0, said.err
    hard = said.document["hard"]
    assert [(row["budget"], row["downsampled_by"], row["of"]) for row in hard["rows"]] == [
        ("25%", 2, 8), ("25%", 3, 8),
    ]  # fmt: skip
    assert "by selection" in hard["note"]


def test_a_suite_whose_data_are_missing_stops_before_anything_runs(harness: Command, tmp_path: Path):
    said = harness("run", "--suite", "smoke", "--method", "divprune", "--data-dir", str(tmp_path), "--no-timing")
    assert (said.code, said.out) == (3, "")
    assert "has no folder pope" in said.complaint and "to do" not in said.err


def test_a_budget_that_a_method_cannot_reach_is_told_and_the_rest_goes_on(harness: Command):
    said = harness("run", "--suite", "smoke", "--method", "fastv", "--set", "k=16", "--budget", "25%",
                   "--data-dir", str(FIXTURES), "--no-timing", "--json")  # fmt: skip
    assert said.code == 0, said.err
    assert [one["benchmark"] for one in said.document["infeasible"]] == ["pope", "gqa", "textvqa_val", "ai2d"]
    assert said.document["runs"] == [] and said.document["summary"][0]["ra"] is None


def test_the_blind_control_runs_without_images_and_is_told_beside_the_whole(harness: Command):
    said = harness("run", "--method", "full", "--blind", "--no-timing", "--json")
    assert said.code == 0, said.err
    assert said.document["benchmark"] == "reference-quick:blind"
    assert said.document["budget"]["realised_tokens"] == 0
    assert said.document["controls"]["full"]["realised_tokens"] == 12
    assert harness("run", "--method", "full", "--blind", "--no-timing", "--json").document == said.document
    assert "no image" in harness("run", "--method", "full", "--blind", "--no-timing").out
    assert harness("run", "--method", "divprune", "--blind").code == 2


def test_five_questions_of_ones_own_are_checked_and_run(harness: Command, tmp_path: Path):
    Image.new("RGB", (128, 96), (90, 0, 0)).save(tmp_path / "0.png")
    rows = [{"image": "0.png", "question": f"is there a red circle {n}?", "answer": "no"} for n in range(4)]
    rows.append({"image": "gone.png", "question": "is there a dog?", "answer": "no"})
    mine = tmp_path / "mine.jsonl"
    mine.write_text("".join(json.dumps(row) + "\n" for row in rows))
    checked = harness("validate", str(mine))
    assert checked.code == 1 and "5: cannot decode gone.png" in checked.err
    said = harness("run", "--benchmark", str(mine), "--method", "divprune", "--no-timing", "--json")
    assert said.code == 0, said.err
    assert (said.document["accuracy"]["n"], said.document["accuracy"]["errors"]) == (5, 1)
    assert "fitting_accuracy" in said.document["metrics"]


def test_a_sweep_takes_data_sets_from_the_same_folder(harness: Command):
    words = ("--methods", "divprune", "--budgets", "50%", "--benchmarks", "ai2d", "--no-controls", "--no-timing")
    said = harness("sweep", *words, "--data-dir", str(FIXTURES), "--dry-run", "--json")
    assert said.code == 0, said.err
    assert said.document["missing"]


def test_what_cannot_be_opened_exits_by_its_kind(harness: Command, tmp_path: Path):
    (tmp_path / "torn.jsonl").write_text("{")
    for words, code in (
        (("--benchmark", str(tmp_path / "none.jsonl")), 2),
        (("--benchmark", str(tmp_path / "torn.jsonl")), 1),
        (("--benchmark", "popes"), 2),
        (("--benchmark", "pope", "--data-dir", str(tmp_path)), 3),
        (("--suite", "smokes"), 2),
    ):
        said = harness("run", "--method", "divprune", "--no-timing", *words)
        assert (said.code, said.out) == (code, ""), said.err
        assert said.complaint.startswith("harness: ")


def test_lists_need_no_network_and_say_what_is_known(harness: Command):
    told = harness("list", "benchmarks", "--json").document
    assert len(told) >= 25
    keys = {"name", "ids", "revision", "split", "columns", "metrics", "chance", "cluster", "licence"}
    assert all(keys <= one.keys() for one in told)
    assert "pope_accuracy" in harness("list", "benchmarks").out
    suites = harness("list", "suites", "--json").document
    assert {one["name"] for one in suites} == set(SUITES)
