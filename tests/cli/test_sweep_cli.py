"""`harness sweep`: what it prints where, and its exit codes."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Command, commands_over
from sweeps import lines_in

from harness.budget.spec import BudgetSpec
from harness.cli.sweep_telling import command_of
from harness.request.request import Request
from harness.store.database import Store
from harness.store.log_writer import RunLog

GRID = ("--methods", "grid", "--budgets", "50%", "--limit", "2", "--no-timing", "--no-controls")


@pytest.fixture
def harness(
    suite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    return commands_over(suite_folder, tmp_path, monkeypatch, capsys)


def test_a_sweep_prints_its_cells_and_a_second_one_says_that_nothing_is_left(harness: Command):
    said = harness("sweep", *GRID)
    assert said.code == 0 and "grid" in said.out and "2 cells: 2 done; 2 of them in" in said.err
    assert "[2/2] grid at 50%, seed 0 on reference-a, reference-quick: ok" in said.err
    again = harness("sweep", *GRID)
    assert again.code == 0 and again.out == said.out
    assert again.complaint == "harness: nothing to do for 2 cells: 2 done"


def test_a_dry_sweep_gives_what_is_missing_as_json(harness: Command, tmp_path: Path):
    said = harness("sweep", *GRID, "--dry-run", "--json")
    assert said.code == 0
    assert {"missing", "done", "stale", "infeasible", "unsupported", "failed", "estimate_s"} <= said.document.keys()
    assert [cell["method"] for cell in said.document["missing"]] == ["full", "grid"]
    assert said.document["estimate_s"] > 0 and said.document["done"] == []
    assert list((tmp_path / "store.runs").glob("*")) == []


def test_a_revision_and_an_image_backend_are_what_they_are_for_run(harness: Command):
    wrong = harness("sweep", *GRID, "--image-backend", "gimp")
    assert wrong.code == 2 and "unknown image backend 'gimp'" in wrong.err
    two = harness("sweep", *GRID, "--models", "reference-a,reference-b", "--revision", "v1")
    assert two.code == 2 and "write NAME@REVISION" in two.err
    one = harness("sweep", *GRID, "--revision", "v1")
    assert one.code == 2 and "no model 'reference-a@v1'" in one.err


def test_workers_may_share_a_run(harness: Command):
    said = harness("sweep", *GRID, "--shard-samples", "1")
    assert said.code == 0 and "2 cells: 2 done; 2 of them in" in said.err
    assert harness("sweep", *GRID).complaint == "harness: nothing to do for 2 cells: 2 done"


def test_a_grid_file_is_overridden_by_flags(harness: Command, tmp_path: Path):
    grid = tmp_path / "grid.toml"
    grid.write_text('methods = ["grid"]\nbudgets = ["50%", "25%"]\nlimit = 2\ntiming = false\ncontrols = false\n')
    found = harness("sweep", str(grid), "--budgets", "16", "--dry-run", "--json").document["missing"]
    assert [cell["budget"] for cell in found] == ["100%", "16"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "a sweep needs methods and budgets"),
        (("--methods", "gird", "--budgets", "50%"), "no method 'gird'; nearest: grid"),
        (("--methods", "grid", "--budgets", "0%"), "out of range"),
        (
            ("--methods", "grid", "--budgets", "50%", "--models", "refrence-a"),
            "no model 'refrence-a'; nearest: ",
        ),
        (("--methods", "grid", "--budgets", "50%", "--benchmarks", "x"), "no benchmark 'x'; nearest: "),
        (("--methods", "grid", "--budgets", "50%", "--attention", "fast"), "unknown attention 'fast'; use one of sdpa"),
        (("--methods", "grid", "--budgets", "50%", "--engine", "rya"), "unknown engine 'rya'; use one of local, ray"),
        (("absent.toml",), "cannot read the grid absent.toml"),
    ],
)
def test_a_word_that_cannot_be_acted_on_exits_2_before_any_work(
    harness: Command, tmp_path: Path, words: tuple[str, ...], complaint: str
):
    said = harness("sweep", *words)
    assert said.code == 2 and said.out == "" and complaint in said.complaint
    assert not (tmp_path / "store.duckdb").exists()


def test_a_failed_cell_exits_1_and_its_command_does_it_again(
    harness: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as broken:
        broken.setattr(RunLog, "finish", lambda log, figures: 1 / 0 if log.path and figures.status == "ok" else None)
        said = harness("sweep", *GRID, "--json")
    failed = said.document["failed"]
    assert said.code == 1 and [cell["method"] for cell in failed] == ["full", "grid"]
    assert "ZeroDivisionError" in failed[0]["message"] and "its unpruned run is error" in failed[1]["message"]
    assert f"again: {failed[1]['command']}" in said.err
    words = shlex.split(failed[1]["command"])
    assert words[:2] == ["harness", "run"] and harness(*words[1:]).code == 0
    assert harness("sweep", *GRID).complaint == "harness: nothing to do for 2 cells: 2 done"


def test_a_cells_command_says_how_its_images_are_read_and_prepared(tmp_path: Path):
    asked = Request("grid", BudgetSpec.parse("50%"), image_backend="torchvision", data_dir="data", stream=True)
    words = command_of(asked, Store(tmp_path / "store.duckdb"), "error")
    assert words[words.index("--image-backend") + 1] == "torchvision" and words[words.index("--data-dir") + 1] == "data"
    assert "--stream" in words
    assert "--stream" not in command_of(replace(asked, stream=False), Store(tmp_path / "store.duckdb"), "error")


def start(store: Path, *words: str) -> subprocess.Popen[str]:
    code = "from harness.cli import main; main()"
    grid = ("--methods", "grid,divprune", "--budgets", "50%", "--no-timing", "--no-controls", "--limit", "100")
    command = [sys.executable, "-c", code, "sweep", *grid, *words, "--store", str(store)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_tells_how_to_continue_and_exits_130_and_keeps_every_answer(tmp_path: Path, presses: int):
    process = start(tmp_path / "store.duckdb", "--workers", str(presses))
    while process.poll() is None and lines_in(tmp_path / "store.runs") < 4:
        time.sleep(0.005)
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)  # two at once would be one
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("harness: continue with: harness sweep --methods grid,divprune")
    assert lines_in(tmp_path / "store.runs") >= 4
