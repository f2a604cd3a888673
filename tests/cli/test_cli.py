"""The command line: what it prints where, and its exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from commands import Command, commands_over
from filelock import FileLock

from harness.reference.paths import MODEL_A

QUICK = ("--no-timing",)
TIMED = ("--pairs", "2", "--minutes", "0.01")


@pytest.fixture
def harness(
    suite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    return commands_over(suite_folder, tmp_path, monkeypatch, capsys)


def test_help_names_every_verb(harness: Command):
    said = harness("--help")
    assert said.code == 0
    for verb in ("run", "list", "show", "doctor", "db"):
        assert f" {verb} " in said.out


@pytest.mark.parametrize("words", [("jump",), ("run",), ("run", "--method", "full", "--seed", "x"), ("list", "things")])
def test_what_cannot_be_parsed_is_a_usage_error(harness: Command, words: tuple[str, ...]):
    assert harness(*words).code == 2


def test_run_prints_the_three_runs_side_by_side_and_what_to_type_next(harness: Command):
    said = harness("run", "--method", "divprune", *TIMED)
    assert said.code == 0
    for word in ("unpruned", "random 50%", "divprune 50%", "accuracy", "RA", "asked", "realised", "6 x16", "FLOPs"):
        assert word in said.out
    for stage in ("vit", "projector", "select", "llm_prefill", "LR"):
        assert stage in said.out
    assert "indicative" in said.out and "beats random" in said.err
    assert "next: harness" in said.err and "next:" not in said.out


def test_json_is_one_document_on_stdout(harness: Command):
    said = harness("run", "--method", "grid", "--json", *TIMED)
    assert said.code == 0
    assert {"run_id", "status", "method", "model", "benchmark", "seed", "budget", "accuracy", "ra", "flops_ratio",
            "latency"} <= said.document.keys()  # fmt: skip
    assert said.document["latency"]["indicative"] is True
    assert said.document["latency"]["base_ms"]["total"] > 0
    again = harness("run", "--method", "grid", "--json", *TIMED)
    assert again.document == said.document


def test_a_setting_changes_the_run(harness: Command):
    plain = harness("run", "--method", "fastv", *QUICK, "--json").document
    set_ = harness("run", "--method", "fastv", "--set", "k=4", *QUICK, "--json").document
    assert (plain["settings"]["k"], set_["settings"]["k"]) == (2, 4)
    assert plain["run_id"] != set_["run_id"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--method", "fastvv"), "no method 'fastvv'; nearest: fastv, "),
        (("--method", "fastv:fast"), "fastv has no preset 'fast'; presets: "),
        (("--method", "grid", "--model", "refrence-a"), "no model 'refrence-a'; nearest: reference-a"),
        (("--method", "grid", "--benchmark", "refrence"), "no benchmark 'refrence'; nearest: reference"),
        (("--method", "grid", "--budget", "0%"), "out of range"),
        (("--method", "grid", "--budget", "150%"), "out of range"),
        (("--method", "grid", "--budget", "many"), "cannot read the budget 'many'"),
        (("--method", "grid", "--budget", "words:3"), "unknown budget kind 'words'"),
        (("--method", "full", "--budget", "25%"), "full keeps every visual token"),
        (("--method", "fastv", "--set", "k=16", "--budget", "25%"), "6 of 12"),
        (("--method", "fastv", "--set", "k=two"), "fastv's k takes int, got 'two'"),
        (("--method", "fastv", "--set", "depht=2"), "fastv has no setting 'depht'"),
        (("--method", "./absent.py"), "no file absent.py"),
        (("--method", "grid", "--dtype", "int8"), "unknown dtype 'int8'"),
        (("--method", "grid", "--attention", "fast"), "unknown attention 'fast'; use one of sdpa, "),
    ],
)
def test_a_word_that_cannot_be_acted_on_exits_2_with_one_clear_line(
    harness: Command, words: tuple[str, ...], complaint: str
):
    said = harness("run", *words, *QUICK)
    assert said.code == 2 and said.out == ""
    assert said.complaint.startswith("harness: ") and complaint in said.complaint


def test_a_file_that_holds_no_pruner_is_a_usage_error(harness: Command, tmp_path: Path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    said = harness("run", "--method", str(tmp_path / "empty.py"), *QUICK)
    assert said.code == 2 and "must define one Pruner, found none" in said.complaint


def test_a_corrupt_checkpoint_exits_1(harness: Command, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(MODEL_A, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    said = harness("run", "--method", "grid", "--model", str(folder), *QUICK)
    assert said.code == 1 and "cannot load" in said.complaint


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
def test_a_device_that_is_not_there_exits_3(harness: Command):
    said = harness("run", "--method", "grid", "--device", "cuda", *QUICK)
    assert said.code == 3 and "--device cpu" in said.complaint


def test_a_kernel_that_is_not_installed_exits_3(harness: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("harness.request.options.find_spec", lambda name: None)
    said = harness("run", "--method", "grid", "--attention", "flash_attention_2", *QUICK)
    assert said.code == 3 and "use sdpa or eager" in said.complaint


def test_a_device_without_enough_memory_exits_3(harness: Command, monkeypatch: pytest.MonkeyPatch):
    def too_large(*arguments: object, **settings: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("harness.run.runner.run", too_large)
    said = harness("run", "--method", "grid", *QUICK)
    assert said.code == 3 and "ran out of memory; try --dtype bfloat16" in said.complaint


def test_a_locked_store_exits_4_and_the_run_is_not_lost(harness: Command, tmp_path: Path):
    with FileLock(tmp_path / "store.duckdb.lock"):
        said = harness("run", "--method", "full", *QUICK)
    assert said.code == 4 and "in use by another process" in said.complaint
    assert harness("run", "--method", "full", *QUICK).code == 0


def test_a_corrupt_database_is_rebuilt_and_told(harness: Command, tmp_path: Path):
    first = harness("run", "--method", "full", *QUICK, "--json").document
    (tmp_path / "store.duckdb").write_bytes(b"not a database" * 1000)
    said = harness("list", "runs", "--json")
    assert said.code == 0 and "rebuilt from 1 logs" in said.err
    assert [row["name"] for row in said.document] == [first["run_id"]]


def test_lists_are_arrays_of_objects_with_a_name(harness: Command):
    harness("run", "--method", "full", *QUICK)
    for what in ("methods", "models", "benchmarks", "runs"):
        rows = harness("list", what, "--json").document
        assert rows and all(isinstance(row["name"], str) for row in rows), what
        table = harness("list", what)
        assert table.code == 0 and rows[0]["name"] in table.out


def test_methods_are_listed_with_hooks_licence_paper_and_presets(harness: Command):
    rows = {row["name"]: row for row in harness("list", "methods", "--json").document}
    assert {"vprune", "quietprune", "divprune", "fastv", "full", "random", "grid"} <= rows.keys()
    assert rows["fastv"]["hooks"] == ["in-llm"] and "arXiv" in rows["fastv"]["paper"]
    for row in rows.values():
        assert {"hooks", "licence", "paper", "presets", "settings"} <= row.keys()


def test_show_tells_of_a_run_by_the_beginning_of_its_id(harness: Command, suite_folder: Path):
    (suite_folder / "images/1.png").write_bytes(b"torn")
    run = harness("run", "--method", "full", *QUICK, "--json").document
    shown = harness("show", run["run_id"][:6], "--json").document
    assert (shown["run_id"], shown["accuracy"]) == (run["run_id"], run["accuracy"]["value"])
    assert [row["sample_id"] for row in shown["failures"]] == ["exist-1", "read-1"]
    assert run["run_id"] in harness("show", run["run_id"]).out


def test_show_tells_of_a_method_and_its_runs(harness: Command):
    run = harness("run", "--method", "full", *QUICK, "--json").document
    shown = harness("show", "full", "--json").document
    assert (shown["name"], shown["runs"]) == ("full", [run["run_id"]])


def test_show_of_nothing_names_what_is_near(harness: Command):
    said = harness("show", "fulll")
    assert said.code == 2 and "nearest methods: full" in said.complaint


def test_the_database_comes_back_from_the_logs(harness: Command, tmp_path: Path):
    harness("run", "--method", "random", *TIMED)
    runs = harness("list", "runs", "--json").document
    (tmp_path / "store.duckdb").unlink()
    said = harness("db", "rebuild", "--json")
    assert said.code == 0 and set(said.document["runs"]) == {row["name"] for row in runs}
    assert harness("list", "runs", "--json").document == runs


def test_a_run_that_misses_its_budget_exits_1_and_says_so(harness: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("harness.budget.spec.TOLERANCE_TOKENS", -1.0)  # nothing meets it
    said = harness("run", "--method", "grid", *QUICK, "--json")
    assert said.code == 1 and said.document["status"] == "failed_budget"
    assert "missed the budget" in said.complaint


def test_samples_that_failed_are_counted_aloud(harness: Command, suite_folder: Path):
    (suite_folder / "images/0.png").write_bytes(b"torn")
    said = harness("run", "--method", "grid", *QUICK)
    assert said.code == 0 and "2 of 4 samples failed and count as wrong" in said.err


def test_doctor_says_all_is_well_or_what_is_not(harness: Command, suite_folder: Path):
    said = harness("doctor", "--no-timing", "--json")
    assert said.code == 0, said.err
    assert {"python", "torch", "duckdb", "store", "model reference-a"} <= {row["name"] for row in said.document}
    shutil.rmtree(suite_folder / "images")
    said = harness("doctor", "--no-timing")
    assert said.code == 3 and "benchmark reference" in said.complaint


def test_json_never_says_nan(harness: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("harness.benchmarks.embedded.exact_match", lambda prediction, answer: 0.0)
    said = harness("run", "--method", "grid", *QUICK, "--json")
    assert json.loads(said.out, parse_constant=pytest.fail)["ra"] is None  # nothing right: no ratio
