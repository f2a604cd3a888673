"""Sweeps on the embedded model and four questions, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from sweeps import Notes, entries, statuses, sweep, tiny_benchmark

from harness.latency.protocol import Protocol
from harness.models.loading import OpenModel
from harness.records.errors import DiskFull
from harness.records.figures import ERROR, INFEASIBLE, OK, UNSUPPORTED
from harness.records.records import Record
from harness.request.opening import Sources
from harness.store.database import Store
from harness.store.log_writer import RunLog
from harness.sweep import loop as conducting
from harness.sweep import worker as workshop
from harness.sweep.grid import GridCell
from harness.sweep.tasks import DAMAGED, MISSING, STALE

GREEDY = (
    "from dataclasses import dataclass\nimport torch\n"
    "from methods.base import INTERFACE, Pruner, Selection, MissingSignal\n"
    "@dataclass(frozen=True)\nclass Greedy(Pruner):\n    name = 'greedy'\n    hooks = (INTERFACE,)\n"
    "    def at_interface(self, view):\n        {body}\n"
)
LATE = {"fastv": {"k": 8}}  # prunes before layer 4 of 16, so 3 of 12 tokens is its floor


@pytest.fixture
def opened() -> list[str]:
    return []


@pytest.fixture
def sources(reference_a: OpenModel, suite_folder: Path, opened: list[str]) -> Sources:
    def model(name: str, **settings: Any) -> OpenModel:
        opened.append(name)
        return reference_a

    return Sources(model, lambda name: tiny_benchmark(suite_folder, name))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.duckdb", lock_timeout_s=0.2, tell=lambda message: None)


def written(folder: Path, body: str) -> str:
    path = folder / "greedy.py"
    path.write_text(GREEDY.format(body=body))
    return str(path)


def test_a_sweep_completes_and_a_second_one_does_nothing(store: Store, sources: Sources):
    cells = entries(methods=("divprune", "random"), budgets=("50%", "25%"), seeds=2)
    first = sweep(cells, store, sources)
    assert set(statuses(first).values()) == {OK} and len(first.cells) == 1 + 2 + 4
    assert all(cell.ran for cell in first.cells)
    notes = Notes()
    second = sweep(cells, store, sources, notes)
    assert statuses(second) == statuses(first)
    assert notes.begun == [] and not any(cell.ran for cell in second.cells)
    runs = store.runs()
    assert len(runs) == 7 and set(runs["status"]) == {"ok"} and set(runs["n"]) == {4}


def test_every_run_is_told_against_the_one_without_pruning(store: Store, sources: Sources):
    sweep(entries(methods=("grid",)), store, sources)
    runs = store.runs().set_index("method")
    assert runs.loc["grid", "reference_run_id"] == runs.loc["full", "run_id"]


def test_a_sweep_and_a_run_share_their_runs(store: Store, sources: Sources):
    from harness.run.runner import run

    (cell,) = [one for one in entries(methods=("divprune",)) if one.request.method == "divprune"]
    comparison = run(cell.request, store, LooksAway(), sources=sources)
    report = sweep([*entries(methods=("divprune", "random"))], store, sources)
    assert not any(one.ran for one in report.cells)
    assert comparison.run.spec.run_id in set(store.runs()["run_id"])


class LooksAway:
    """A watcher of one run that looks away."""

    def begins(self, title: str, total: int, done: int) -> None: ...
    def advanced(self, steps: int = 1) -> None: ...
    def ends(self) -> None: ...


def test_weights_are_opened_once_a_model(store: Store, sources: Sources, opened: list[str]):
    cells = entries(methods=("grid", "random"), benchmarks=("reference", "reference-quick"))
    sweep(cells, store, sources)
    assert opened == ["reference-a"]


def test_a_dry_sweep_says_what_is_missing_and_how_long_it_may_take(store: Store, sources: Sources):
    grid = {"methods": ("grid", "fastv"), "budgets": ("50%", "5%"), "settings": LATE}
    report = sweep(entries(**grid), store, sources, dry=True)
    assert statuses(report) == {
        "full 100% 0": MISSING, "grid 50% 0": MISSING, "grid 5% 0": MISSING, "fastv 50% 0": MISSING,
        "fastv 5% 0": INFEASIBLE,
    }  # fmt: skip
    assert report.left_s > 0 and store.runs().empty and list(store.log_folder.glob("*")) == []


def test_an_infeasible_cell_is_stored_with_its_floor_and_not_tried_again(store: Store, sources: Sources):
    cells = entries(methods=("fastv",), budgets=("5%",), settings=LATE)
    assert statuses(sweep(cells, store, sources))["fastv 5% 0"] == INFEASIBLE
    row = store.query("FROM runs WHERE status = 'infeasible'").iloc[0]
    assert row["method"] == "fastv" and row["floor_tokens"] == 3 and "needs >= 3 of 12" in row["message"]
    again = sweep(cells, store, sources)
    assert (statuses(again)["fastv 5% 0"], any(cell.ran for cell in again.cells)) == (INFEASIBLE, False)
    assert again.cells[1].floor_tokens == 3


def test_a_signal_that_the_model_lacks_makes_a_cell_unsupported(store: Store, sources: Sources, tmp_path: Path):
    method = written(tmp_path, "raise MissingSignal('no such rows here')")
    report = sweep(entries(methods=(method, "grid")), store, sources)
    assert statuses(report) == {"full 100% 0": OK, f"{method} 50% 0": UNSUPPORTED, "grid 50% 0": OK}
    row = store.query("FROM runs WHERE status = 'unsupported'").iloc[0]
    assert "no such rows here" in row["message"]


def test_a_cell_that_fails_is_tried_again_from_its_log_then_stored_and_the_others_go_on(
    store: Store, sources: Sources, tmp_path: Path
):
    method = written(tmp_path, "raise ZeroDivisionError('oh') if view.seed % 3 == 0 else None")
    notes = Notes()
    report = sweep(entries(methods=(written(tmp_path, "return 1 / 0"), "grid")), store, sources, notes)
    assert statuses(report)[f"{method} 50% 0"] == ERROR and statuses(report)["grid 50% 0"] == OK
    assert [one for one in notes.said if "ZeroDivisionError" in one][-1].endswith("given up")
    assert len([one for one in notes.begun if "greedy" in one[0]]) == 3
    assert store.query("SELECT message FROM runs WHERE status = 'error'")["message"][0].startswith("ZeroDivisionError")
    assert len(store.runs()) == 3


def test_a_failed_cell_is_tried_again_by_the_next_sweep(
    store: Store, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    append = RunLog.append

    def unlucky(log: RunLog, *rows: Any) -> None:
        if len(log.done) == 2:
            raise RuntimeError("the device fell off the bus")
        append(log, *rows)

    monkeypatch.setattr(RunLog, "append", unlucky)
    assert statuses(sweep(entries(), store, sources))["full 100% 0"] == ERROR
    monkeypatch.setattr(RunLog, "append", append)
    notes = Notes()
    assert set(statuses(sweep(entries(), store, sources, notes)).values()) == {OK}
    assert notes.begun[0] == ("unpruned", 4, 2)
    assert set(store.runs()["status"]) == {"ok"}


def test_one_ctrl_c_finishes_the_sample_and_the_same_sweep_goes_on(store: Store, sources: Sources):
    cells = entries(methods=("grid", "divprune"))
    stopped = sweep(cells, store, sources, Notes(interrupt_after=6))
    assert stopped.stopped and statuses(stopped)["full 100% 0"] == OK and statuses(stopped)["grid 50% 0"] == MISSING
    notes = Notes()
    resumed = sweep(cells, store, sources, notes)
    assert resumed.stopped == "" and set(statuses(resumed).values()) == {OK}
    assert notes.begun == [("grid at 50%", 4, 2), ("divprune at 50%", 4, 0)]


def test_stale_cells_are_redone_on_request_only(store: Store, sources: Sources, monkeypatch: pytest.MonkeyPatch):
    cells = entries(methods=("grid",))
    sweep(cells, store, sources)
    monkeypatch.setattr("harness.request.request.code_of", lambda method, family, benchmark: "newer")
    kept = sweep(cells, store, sources)
    assert set(statuses(kept).values()) == {STALE} and not any(cell.ran for cell in kept.cells)
    redone = sweep(cells, store, sources, redo_stale=True)
    assert set(statuses(redone).values()) == {OK} and len(store.runs()) == 4


def test_code_that_changes_under_a_sweep_is_refused(store: Store, sources: Sources, monkeypatch: pytest.MonkeyPatch):
    class Meddler(Notes):
        def begins(self, name: str, title: str, total: int, done: int) -> None:
            monkeypatch.setattr("harness.request.request.code_of", lambda method, family, benchmark: "newer")

    report = sweep(entries(methods=("grid",)), store, sources, Meddler())
    assert report.cells[1].status == ERROR and "changed while the sweep ran" in report.cells[1].message
    assert set(store.runs()["method"]) == {"full"}


def test_timing_follows_the_answers_and_is_not_repeated(store: Store, sources: Sources):
    short = Protocol(pairs=2, warmup=1)
    cells = [GridCell(one.request, None if one.request.is_full else short) for one in entries(methods=("grid",))]
    notes = Notes()
    report = sweep(cells, store, sources, notes)
    assert [title for title, _, _ in notes.begun] == ["unpruned", "grid at 50%", "timing grid at 50%"]
    assert set(statuses(report).values()) == {OK}
    assert store.query("SELECT lr FROM runs WHERE method = 'grid'")["lr"].notna().all()
    assert not any(cell.ran for cell in sweep(cells, store, sources).cells)


def test_a_cell_whose_log_another_process_writes_is_looked_at_again(
    store: Store, sources: Sources, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(conducting, "BUSY_S", 0.0)
    cells = entries(methods=("grid",))
    sweep([cells[0]], store, sources)
    dry = sweep(cells, store, sources, dry=True)
    spec = dry.cells[1].finding.spec
    assert spec is not None
    lock = FileLock(f"{store.log_path(spec.run_id)}.lock")
    lock.acquire()

    class Patient(Notes):
        def told(self, message: str) -> None:
            super().told(message)
            if len(self.said) == 3:
                lock.release()

    notes = Patient()
    report = sweep(cells, store, sources, notes)
    assert "another process is writing" in notes.said[0]
    assert set(statuses(report).values()) == {OK}


def test_a_full_disk_stops_the_sweep_and_loses_nothing(store: Store, sources: Sources, monkeypatch: pytest.MonkeyPatch):
    append, room = RunLog.append, iter(range(6))

    def until_full(log: RunLog, *rows: Record) -> None:
        if next(room, None) is None:
            raise DiskFull("no space left; free some space, run again")
        append(log, *rows)

    monkeypatch.setattr(RunLog, "append", until_full)
    report = sweep(entries(methods=("grid", "divprune")), store, sources)
    assert report.disk_full and "no space left" in report.stopped
    monkeypatch.setattr(RunLog, "append", append)
    notes = Notes()
    assert set(statuses(sweep(entries(methods=("grid", "divprune")), store, sources, notes)).values()) == {OK}
    assert notes.begun[0] == ("grid at 50%", 4, 2)


def test_a_damaged_log_is_named_and_fails_its_cell_alone(store: Store, sources: Sources):
    cells = entries(methods=("grid", "divprune"))
    report = sweep(cells, store, sources)
    spec = report.cells[1].finding.spec
    assert spec is not None
    log = store.log_path(spec.run_id)
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join([*lines[:3], lines[3].replace("read", "lead"), *lines[4:]]))
    notes = Notes()
    found = sweep(cells, store, sources, notes)
    assert statuses(found) == {"full 100% 0": OK, "grid 50% 0": DAMAGED, "divprune 50% 0": OK}
    assert any(str(log) in one and "line 4" in one and "--force" in one for one in notes.said)


def test_a_torn_tail_is_told_and_redone(store: Store, sources: Sources):
    report = sweep(entries(), store, sources)
    spec = report.cells[1].finding.spec
    assert spec is not None
    log = store.log_path(spec.run_id)
    log.write_bytes(log.read_bytes()[:-700])
    notes = Notes()
    assert set(statuses(sweep(entries(), store, sources, notes)).values()) == {OK}
    assert f"{log} ends in" in notes.said[0] and "damaged bytes" in notes.said[0]


def test_finished_runs_that_the_store_never_saw_are_taken_in(
    store: Store, sources: Sources, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as dying:
        dying.setattr(Store, "ingest", lambda store, log: "")
        sweep(entries(), store, sources)
    assert store.runs().empty
    report = sweep(entries(), store, sources)
    assert not any(cell.ran for cell in report.cells) and list(store.runs()["status"]) == ["ok", "ok"]


def test_a_store_that_is_busy_gets_its_runs_at_the_end(store: Store, sources: Sources):
    lock = FileLock(f"{store.path}.lock")

    class Blocker(Notes):
        def begins(self, name: str, title: str, total: int, done: int) -> None:
            lock.acquire() if title == "unpruned" else lock.release()

    notes = Blocker()
    report = sweep(entries(), store, sources, notes)
    assert set(statuses(report).values()) == {OK} and "in use by another process" in notes.said[0]
    assert set(store.runs()["method"]) == {"full", "random"}


def test_a_model_that_cannot_be_opened_fails_its_cells_alone(store: Store, sources: Sources, tmp_path: Path):
    from harness.records.errors import CorruptCheckpoint

    (tmp_path / "torn").mkdir()

    def model(name: str, **settings: Any) -> OpenModel:
        if name != "reference-a":
            raise CorruptCheckpoint(f"cannot load {name}")
        return sources.model(name, **settings)

    cells = entries(models=(str(tmp_path / "torn"), "reference-a"))
    report = sweep(cells, store, Sources(model, sources.benchmark))
    assert [cell.status for cell in report.cells] == [ERROR, ERROR, OK, OK]
    assert "cannot load" in report.cells[0].message


def test_a_probe_is_made_only_where_no_run_has_told_the_pace(
    store: Store, sources: Sources, monkeypatch: pytest.MonkeyPatch
):
    sweep(entries(), store, sources)
    monkeypatch.setattr(workshop, "PROBED", None)  # probing would fail
    report = sweep(entries(seeds=3), store, sources, dry=True)
    assert list(statuses(report).values()) == [OK, OK, MISSING, MISSING]
    assert report.left_s == pytest.approx(sum(cell.left_s for cell in report.cells)) and report.left_s > 0
