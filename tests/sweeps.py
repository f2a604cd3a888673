"""Small sweeps for tests: the embedded model on four questions, and an observer that takes notes."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness.benchmarks import Benchmark
from harness.benchmarks.embedded import open_suite
from harness.request.opening import Sources
from harness.store.database import Store
from harness.store.log_reader import read_log
from harness.sweep.grid import GridCell, entries_of
from harness.sweep.loop import SweepReport, conduct
from harness.sweep.schedule import CellState, Schedule
from harness.sweep.tasks import TaskOutcome
from harness.sweep.words import GridWords
from harness.sweep.workers import Alone, Crew, Processes, Start


class Notes:
    """An observer that remembers; after `interrupt_after` samples it presses Ctrl-C once."""

    def __init__(self, interrupt_after: int | None = None):
        self.begun: list[tuple[str, int, int]] = []
        self.settled_cells: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.steps = 0
        self._interrupt_after = interrupt_after

    def begins(self, name: str, title: str, total: int, done: int) -> None:
        self.begun.append((title, total, done))

    def advanced(self, name: str, steps: int) -> None:
        self.steps += steps

    def changed(self, schedule: Schedule) -> None:
        return None

    def settled(self, cell: CellState, outcome: TaskOutcome) -> None:
        self.settled_cells.append((cell.request.method, outcome.status))

    def told(self, message: str) -> None:
        self.said.append(message)

    def stop(self) -> bool:
        return self._interrupt_after is not None and self.steps >= self._interrupt_after


def tiny_benchmark(folder: Path, name: str) -> Benchmark:
    """The suite in `folder`, whatever the name; a function that other processes can find."""
    return open_suite(name, folder, quick=name.endswith("quick"))


def tiny_sources(folder: Path) -> Sources:
    """The embedded model on the suite in `folder`."""
    return Sources(benchmark=partial(tiny_benchmark, folder))


def entries(**words: Any) -> list[GridCell]:
    """The cells of a grid over four questions, without timing and, unless asked for, without controls."""
    usual = {"methods": ("random",), "budgets": ("50%",), "benchmarks": ("reference",), "seeds": 1, "controls": False}
    return entries_of(GridWords(**{**usual, "limit": 4, "device": "cpu", **words}), None)


def sweep(
    cells: list[GridCell],
    store: Store,
    sources: Sources,
    notes: Notes | None = None,
    crew: Callable[[], Crew] | None = None,
    **how: Any,
) -> SweepReport:
    """A sweep in this process, or by another crew."""
    notes = notes or Notes()
    by = crew() if crew else Alone(store.path, notes.stop, sources)
    try:
        return conduct(cells, store, by, notes, notes.stop, **how)
    finally:
        by.close()


def statuses(report: SweepReport) -> dict[str, str]:
    """ "method budget seed" -> status."""
    return {f"{one.request.method} {one.request.budget} {one.request.seed}": one.status for one in report.cells}


def tables(store: Store) -> dict[str, list[tuple]]:
    """The rows of runs and samples, without what no two runs share: times, machines' moods, continuations."""
    runs = store.query("SELECT * EXCLUDE (started_at, finished_at, inference_time_s) FROM runs ORDER BY ALL")
    samples = store.query("SELECT * EXCLUDE (inference_time_s) FROM samples ORDER BY ALL")
    return {"runs": _plain(runs), "samples": _plain(samples)}


def records(store: Store) -> dict[str, dict[str, Any]]:
    """Run id -> sample id -> its record, wall time left out."""
    found = {}
    for log in store.log_folder.glob("*.jsonl"):
        contents = read_log(log)
        assert contents is not None
        found[contents.spec.run_id] = {
            key: dataclasses.replace(record, seconds=0.0) for key, record in contents.records.items()
        }
    return found


def _plain(frame: Any) -> list[tuple]:
    return [tuple(map(str, row)) for row in frame.itertuples(index=False)]


def crew_of(store: Store, suite: Path, workers: int = 2) -> Processes:
    """Worker processes on a suite."""
    return Processes(workers, Start(store.path, tiny_sources(suite)))


def sweep_apart(path: Path, suite: Path, words: dict[str, Any]) -> BaseProcess:
    """A process that does the sweep with two workers, as a command would. It is a fork, so that it begins at once."""
    process = multiprocessing.get_context("fork").Process(target=_apart, args=(path, suite, words))
    process.start()
    return process


def _apart(path: Path, suite: Path, words: dict[str, Any]) -> None:
    forkserver._forkserver.__init__()  # not the server of the process that this one was forked from
    store = Store(path, tell=lambda message: None)
    sweep(entries(**words), store, tiny_sources(suite), crew=lambda: crew_of(store, suite))


def workers_of(process: BaseProcess) -> list[int]:
    """The ids of the workers of a process from `sweep_apart`: what its fork server has forked."""
    return [worker for server in _children(process.pid) for worker in _children(server)]


def _children(process_id: int | None) -> list[int]:
    with suppress(OSError):
        return [int(one) for one in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]
    return []


def lines_in(folder: Path) -> int:
    """The lines in all logs so far."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl"))
