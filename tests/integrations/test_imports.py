"""Other tools' results: what they report is kept as theirs, and a wrong or partial folder is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import Command, commands_in
from openpyxl import Workbook

from harness.integrations import import_lmms_eval as lmms_eval
from harness.integrations import vlmevalkit
from harness.integrations.lmms_metrics import means_of, scores_of
from harness.integrations.reported import agrees
from harness.records.errors import HarnessError

STAMP = "20260801_120000"


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return commands_in(tmp_path, monkeypatch, capsys)


@pytest.fixture
def lmms(tmp_path: Path) -> Path:
    """Two tasks: POPE, whose rows carry one score for all metrics, and ChartQA with two filters."""
    folder = tmp_path / "lmms/llava-hf__llava-1.5-7b-hf"
    folder.mkdir(parents=True)
    pope = {"pope_accuracy,none": 0.75, "pope_accuracy_stderr,none": 0.1, "pope_f1_score,none": 0.8, "alias": "pope"}
    chart = {"relaxed_overall,strict": 0.5, "relaxed_overall,loose": 1.0, "relaxed_overall_stderr,loose": "N/A"}
    told = {
        "results": {
            "pope": pope,
            "chartqa": chart,
            "gqa": {"exact_match,none": 0.61},
            "both": {"exact_match,none": 0.7},
        },
        "group_subtasks": {"both": ["chartqa", "gqa"], "pope": [], "gqa": []},
        "configs": {"chartqa": {"metric_list": [{"metric": "relaxed_overall", "aggregation": "mean"}]}},
        "n-samples": {
            "pope": {"original": 9000, "effective": 4},
            "chartqa": {"original": 2500, "effective": 2},
            "gqa": {"original": 12578, "effective": 100},
        },
        "config": {"model": "llava_hf", "model_args": "pretrained=x", "limit": 4},
        "model_name": "llava-1.5-7b",
        "git_hash": "75571cfe",
    }
    (folder / f"{STAMP}_results.json").write_text(json.dumps(told))
    shared = {"target": "yes", "input": "Is there a dog?", "filtered_resps": ["Yes"]}
    score = {"question_id": "1", "prediction": "yes"}
    write(folder / f"{STAMP}_samples_pope.jsonl", [
        {"doc_id": n, **shared, "pope_accuracy": {**score, "score": n < 3}, "pope_f1_score": {**score, "score": n < 3}}
        for n in range(4)
    ])  # fmt: skip
    write(folder / f"{STAMP}_samples_chartqa.jsonl", [
        {"doc_id": n, **shared, "filtered_resps": words, "relaxed_overall": value}
        for words, values in ((["a"], (1.0, 0.0)), (["b"], (1.0, 1.0))) for n, value in enumerate(values)
    ])  # fmt: skip
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_score_is_taken_only_from_a_metric_that_is_its_mean(lmms: Path):
    pope, *_ = lmms_eval.read(lmms)
    assert (pope.benchmark, pope.model, pope.n) == ("pope", "llava-1.5-7b", 4)
    assert pope.metrics == {"pope_accuracy": 0.75, "pope_f1_score": 0.8}
    assert [answer.score for answer in pope.answers] == [1.0, 1.0, 1.0, 0.0]
    assert (pope.answers[0].said, pope.answers[0].expected) == ("Yes", "yes")
    assert agrees([1.0, 0.0], 0.5) and not agrees([1.0, 0.0], 0.51) and not agrees([], 0.0)


def test_blocks_of_rows_are_named_by_the_order_of_the_filters(lmms: Path):
    found = {one.benchmark: one for one in lmms_eval.read(lmms)}
    strict, loose = found["chartqa:strict"], found["chartqa:loose"]
    assert ([one.score for one in strict.answers], strict.answers[0].said) == ([1.0, 0.0], "a")
    assert ([one.score for one in loose.answers], loose.answers[0].said) == ([1.0, 1.0], "b")


def test_a_metric_that_the_config_calls_a_mean_is_one_and_groups_are_their_tasks(lmms: Path):
    assert scores_of([{"own": 1}, {"own": 0}], {"own": 0.5}) is None
    known = means_of({"metric_list": [{"metric": "own", "aggregation": "mean"}, {"metric": "f1"}]})
    assert scores_of([{"own": 1}, {"own": 0}], {"own": 0.5}, known) == [1.0, 0.0]
    assert {one.benchmark for one in lmms_eval.read(lmms)} == {"pope", "chartqa:strict", "chartqa:loose", "gqa"}


def test_a_limit_and_the_content_of_both_files_are_part_of_a_run(lmms: Path):
    before = lmms_eval.read(lmms)[0].spec
    assert (before.limit, before.budget_kind, before.budget_value) == (4, "unknown", None)
    file = lmms / f"{STAMP}_samples_pope.jsonl"
    file.write_text(file.read_text().replace('"Yes"', '"yes"', 1))
    after = lmms_eval.read(lmms)[0].spec
    assert after.run_id != before.run_id and after.benchmark_revision == before.benchmark_revision


def test_a_task_without_samples_has_its_metrics_and_no_answers(lmms: Path):
    gqa = {one.benchmark: one for one in lmms_eval.read(lmms)}["gqa"]
    assert (gqa.answers, gqa.n, gqa.metrics) == ((), 100, {"exact_match": 0.61})
    assert gqa.figures.accuracy is None


def test_rows_that_disagree_with_the_reported_value_give_no_scores(lmms: Path):
    file = lmms / f"{STAMP}_samples_pope.jsonl"
    file.write_text(file.read_text().replace("true", "false", 1))
    assert lmms_eval.read(lmms)[0].answers == ()


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    folder = tmp_path / "kit/Qwen2_VL_7B"
    (folder / "T20260801-1200").mkdir(parents=True)
    (folder / "T20260801-1200/Qwen2_VL_7B_MMBench_DEV_EN_exact_matching_result.tsv").write_text(
        "index\tquestion\tA\tB\tanswer\tprediction\thit\n1\twhat?\tx\ty\tA\tA\t1\n2\twhat?\tx\ty\tB\tNone\t0\n"
    )
    rows = [
        {"index": 0, "question": "dog?", "answer": "Yes", "prediction": "yes", "extracted": "Yes", "score": True},
        {
            "index": 1,
            "question": "cat?",
            "answer": "No",
            "prediction": "Failed to obtain answer via API.",
            "score": False,
        },
    ]
    (folder / "Qwen2_VL_7B_POPE_auxmatch.json").write_text(json.dumps(rows))
    return folder


def test_judged_tables_are_split_by_the_folders_model(kit: Path):
    choice, yes_no = sorted(vlmevalkit.read(kit), key=lambda one: one.benchmark)
    assert (choice.benchmark, choice.model, yes_no.benchmark) == ("MMBench_DEV_EN", "Qwen2_VL_7B", "POPE")
    assert [(one.said, one.score) for one in choice.answers] == [("A", 1.0), ("None", 0.0)]
    assert [one.error for one in yes_no.answers] == [None, "Failed to obtain answer"]
    assert yes_no.metrics == {"hit_ratio": 0.5}


@pytest.fixture
def circular(kit: Path) -> Path:
    """MMBench with four copies of each of two questions: one hit in all, one missed in a copy."""
    run = kit / "T20260801-1200"
    for old in run.iterdir():
        old.unlink()
    copies = [{"index": base + 1_000_000 * copy, "prediction": "A"} for base in (7, 8) for copy in range(4)]
    (run / "Qwen2_VL_7B_MMBench_DEV_EN.json").write_text(json.dumps(copies))
    judged = [
        {"index": index, "g_index": index % 1_000_000, "question": "q", "answer": "A", "prediction": "None", "hit": hit}
        for index, hit in ((7, 1), (8, 0), (1_000_007, 1))
    ]
    (run / "Qwen2_VL_7B_MMBench_DEV_EN_exact_matching_result.json").write_text(json.dumps(judged))
    told = {"metrics": {"Overall": 50.0, "note": "x"}, "status": "done"}
    (run / "status.json").write_text(json.dumps({"model_name": "Qwen2_VL_7B", "datasets": {"MMBench_DEV_EN": told}}))
    return run


def test_of_a_circular_set_the_base_questions_are_taken(circular: Path):
    [found] = vlmevalkit.read(circular)
    assert [(one.id, one.score, one.said) for one in found.answers] == [("7", 1.0, "None"), ("8", 0.0, "None")]
    assert found.settings == {"copies": 4.0}
    assert found.metrics == {"Overall": 50.0, "hit_ratio": 0.5}


def test_predictions_that_nobody_judged_are_named(circular: Path):
    beside = circular / "Qwen2_VL_7B_MMBench_DEV_EN.json"
    beside.write_text(json.dumps([*json.loads(beside.read_text()), {"index": 9, "prediction": "B"}]))
    with pytest.raises(HarnessError, match=r"judges 2 questions, .*DEV_EN\.json has 3; one is torn"):
        vlmevalkit.read(circular)


def test_a_spreadsheet_is_read_like_a_table_and_cut_cells_are_counted(tmp_path: Path):
    folder = tmp_path / "GPT_4"
    folder.mkdir()
    book = Workbook()
    rows = (
        ("index", "question", "answer", "prediction", "hit"),
        (1, "q", "A", "A" * 32_767, 1),
        (2, "r", "B", None, 0),
    )
    for row in rows:
        book.active.append(row)
    file = folder / "GPT_4_MMStar_exact_matching_result.xlsx"
    book.save(file)
    [found] = vlmevalkit.read(folder)
    assert [(one.id, one.expected, one.score) for one in found.answers] == [("1", "A", 1.0), ("2", "B", 0.0)]
    assert (found.answers[1].said, found.settings) == ("", {"cut_cells": 1})
    file.write_text("no spreadsheet")
    with pytest.raises(HarnessError, match=r"result\.xlsx cannot be read"):
        vlmevalkit.read(folder)


def test_reported_runs_are_compared_with_each_other_where_their_questions_are_the_same(harness: Command, lmms: Path):
    worse = lmms.parent / "worse"
    shutil.copytree(lmms, worse)
    results = worse / f"{STAMP}_results.json"
    results.write_text(results.read_text().replace("0.75", "0.5").replace("llava-1.5-7b", "small"))
    rows = worse / f"{STAMP}_samples_pope.jsonl"
    rows.write_text(rows.read_text().replace("true", "false", 2))
    runs = [harness("import", "lmms-eval", str(folder), "--json").document for folder in (lmms, worse)]
    by_name = [{run["benchmark"]: run["run_id"] for run in told} for told in runs]
    told = harness("compare", by_name[0]["pope"], by_name[1]["pope"], "--json")
    assert told.code == 0 and told.document["difference"]["value"] == -0.25, told.err
    assert harness("compare", by_name[0]["pope"], by_name[1]["pope"]).code == 0
    refused = harness("compare", by_name[0]["gqa"], by_name[1]["gqa"])
    assert refused.code == 2 and "has no scores of single questions on gqa" in refused.complaint


def test_reported_runs_are_in_the_store_once_and_apart(harness: Command, lmms: Path, kit: Path):
    told = harness("import", "lmms-eval", str(lmms), "--json")
    assert told.code == 0, told.err
    assert harness("import", "lmms-eval", str(lmms), "--json").document == told.document
    assert harness("import", "vlmevalkit", str(kit)).code == 0
    runs = {run["benchmark"]: run for run in harness("list", "runs", "--json").document}
    assert len(runs) == 6 and {run["status"] for run in runs.values()} == {"reported"}
    assert (runs["pope"]["method"], runs["pope"]["budget"]) == ("reported:lmms-eval", "unknown")
    assert (runs["pope"]["accuracy"], runs["pope"]["ra"], runs["POPE"]["errors"]) == (0.75, None, 1)
    shown = harness("show", told.document[0]["run_id"], "--json")
    assert shown.document["metrics"] == {"pope_accuracy": 0.75, "pope_f1_score": 0.8}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / f"{STAMP}_results.json").unlink(), "no .*_results.json"),
        (lambda folder: (folder / f"{STAMP}_results.json").write_text("{"), "is no JSON"),
        (lambda folder: (folder / f"{STAMP}_results.json").write_text("[]"), "has no results"),
        (lambda folder: (folder / f"{STAMP}_samples_pope.jsonl").write_text("{"), "line 1 is no JSON"),
        (lambda folder: (folder / f"{STAMP}_samples_pope.jsonl").write_text("{}"), "line 1 has no doc_id"),
        (lambda folder: write(folder / f"{STAMP}_samples_chartqa.jsonl", [{"doc_id": 1}] * 3), "3 rows for 2 filters"),
        (
            lambda folder: write(folder / f"{STAMP}_samples_pope.jsonl", [{"doc_id": 1}] * 3),
            "3 documents, .* of 4",
        ),
    ],
)
def test_a_wrong_lmms_folder_is_named(lmms: Path, damage, words: str):
    damage(lmms)
    with pytest.raises(HarnessError, match=words):
        lmms_eval.read(lmms)


def test_a_wrong_vlmevalkit_folder_is_named(kit: Path, tmp_path: Path):
    with pytest.raises(HarnessError, match=r"no .*_result or .*is it VLMEvalKit's"):
        vlmevalkit.read(tmp_path / "nothing")
    file = kit / "Qwen2_VL_7B_POPE_auxmatch.json"
    for content, words in (
        ("{", "cannot be read"), ("[]", "has no rows"), ('[{"index": 1}]', "row 1 lacks .*it has index"),
    ):  # fmt: skip
        file.write_text(content)
        with pytest.raises(HarnessError, match=words):
            vlmevalkit.read(file)
    with pytest.raises(HarnessError, match="does not begin with its folder's model"):
        vlmevalkit.read(file.rename(tmp_path / "Other_POPE_auxmatch.json"))
