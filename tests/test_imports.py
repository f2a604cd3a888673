"""Other tools' results: what they report is kept as theirs, and a wrong or partial folder is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Command, commands_in

from harness.errors import HarnessError
from harness.imports import lmms_eval, vlmevalkit
from harness.imports.reported import agrees

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
        "results": {"pope": pope, "chartqa": chart, "gqa": {"exact_match,none": 0.61}},
        "n-samples": {"gqa": {"original": 12578, "effective": 100}},
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
    ],
)
def test_a_wrong_lmms_folder_is_named(lmms: Path, damage, words: str):
    damage(lmms)
    with pytest.raises(HarnessError, match=words):
        lmms_eval.read(lmms)


def test_a_wrong_vlmevalkit_folder_is_named(kit: Path, tmp_path: Path):
    with pytest.raises(HarnessError, match=r"no .*_result or .*PRED_FORMAT=tsv"):
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
