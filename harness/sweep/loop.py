"""A sweep from its cells to its report: what comes next goes to whoever is free, what ends goes into the store."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.records.errors import CorruptLog, DiskFull, StoreLocked
from harness.records.progress import Stop
from harness.run.runner import environment
from harness.store.database import Store
from harness.sweep.grid import GridCell
from harness.sweep.schedule import CellState, Schedule
from harness.sweep.tasks import (
    BUSY,
    DAMAGED,
    DISK_FULL,
    STOPPED,
    Finding,
    Job,
    ModelKey,
    Result,
    Survey,
    TaskOutcome,
    model_key,
)
from harness.sweep.worker import conclude
from harness.sweep.workers import Crew, Listener

POLL_S = 0.2
BUSY_S = 2.0  # until a cell that another process works on is looked at again


class Observer(Listener, Protocol):
    """Someone who looks on while a sweep goes on."""

    def changed(self, schedule: Schedule) -> None:
        """Something began, ended or moved on."""

    def settled(self, cell: CellState, outcome: TaskOutcome) -> None:
        """A job of a cell has ended for good."""

    def told(self, message: str) -> None:
        """Words for people."""


@dataclass(frozen=True)
class SweepReport:
    """What became of a sweep's cells, in their order. stopped: why it ended early, "" if it did not."""

    cells: tuple[CellState, ...]
    stopped: str
    disk_full: bool
    left_s: float
    seconds: float


def conduct(
    entries: Sequence[GridCell],
    store: Store,
    crew: Crew,
    observer: Observer,
    stop: Stop,
    *,
    redo_stale: bool = False,
    dry: bool = False,
    shard_samples: int | None = None,
) -> SweepReport:
    """Do what is left of the entries; dry: only find out. shard_samples: as `Schedule` has it.

    Whatever happens to one cell, the others go on. When `stop` says so, running samples are finished. The caller
    closes the crew. Raises StoreLocked when the store had no time for a log even once everything else was done.
    """
    began = time.monotonic()
    sweep = _Sweep(Schedule(_surveys(entries, store), redo_stale, dry, shard_samples), store, crew, observer)
    while not sweep.schedule.finished:
        sweep.turn(stop)
    sweep.take_in_what_waits()
    schedule, seconds = sweep.schedule, time.monotonic() - began
    stopped = schedule.stopped
    message = "" if stopped is None else stopped.message or "stopped; nothing is lost"
    is_full = stopped is not None and stopped.status == DISK_FULL
    return SweepReport(tuple(schedule.cells.values()), message, is_full, schedule.left_s, seconds)


class _Sweep:
    """The one who gives tasks to the crew and hears how they ended."""

    def __init__(self, schedule: Schedule, store: Store, crew: Crew, observer: Observer):
        self.schedule = schedule
        self._store = store
        self._crew = crew
        self._observer = observer
        self._told_to_stop = False
        self._waiting: list[Path] = []  # logs that the store had no time for

    def turn(self, stop: Stop) -> None:
        """Give out what there is, then wait a moment for something to end."""
        if (stop() or self.schedule.stopped) and not self._told_to_stop:
            self._told_to_stop = True
            self.schedule.stopped = self.schedule.stopped or TaskOutcome(STOPPED)
            self._crew.stop()
        gave = self._give()
        if gave or len(self._crew.idle()) < self._crew.size:
            for name, result in self._crew.wait(POLL_S, _Progress(self.schedule, self._observer)):
                self._ended(name, result)
        elif not self.schedule.finished:
            time.sleep(POLL_S)  # every cell that is left is busy elsewhere
        self._observer.changed(self.schedule)

    def _give(self) -> bool:
        gave = False
        for worker in self._crew.idle():
            task = self.schedule.next(self._crew.held(worker), time.monotonic())
            if task is not None:
                self._crew.give(worker, *task)
                gave = True
        return gave

    def _ended(self, name: str, result: Result) -> None:
        task = self.schedule.running[name]
        if isinstance(result, tuple):
            self.schedule.surveyed(name, result)
            self._tell_of_damage(result)
            self._catch_up(result)
        elif isinstance(task, Survey):
            self.schedule.failed(name, result)
        else:
            cell = self.schedule.done(name, result, time.monotonic() + BUSY_S)
            if result.status == BUSY:
                self._observer.told(f"{result.message}: looked at again in {BUSY_S:g} s")
            elif result.again:
                self._observer.told(f"{title_of(task)}: {result.message}; " + ("given up" if cell else "tried again"))
            if cell is not None:
                self._keep(task, cell, result)

    def _keep(self, job: Job, cell: CellState, outcome: TaskOutcome) -> None:
        """Put what became of a cell into the store."""
        if outcome.again:
            try:
                conclude(self._store, job.spec, environment(), outcome)
            except (CorruptLog, StoreLocked, DiskFull) as problem:
                self._observer.told(str(problem))
        log = self._store.log_path(job.spec.run_id)
        if log.exists():
            self._take_in(log)
        self._observer.settled(cell, outcome)

    def _take_in(self, log: Path) -> None:
        try:
            self._store.ingest(log)
        except DiskFull as problem:
            self.schedule.stopped = TaskOutcome(DISK_FULL, str(problem))
        except (StoreLocked, CorruptLog) as problem:
            self._observer.told(str(problem))
            self._waiting.append(log)

    def take_in_what_waits(self) -> None:
        """Try once more what the store had no time for. Raises StoreLocked, CorruptLog, DiskFull."""
        for log in self._waiting:
            self._store.ingest(log)

    def _catch_up(self, findings: Sequence[Finding]) -> None:
        """Take in finished logs that the store does not know: their sweep died between the last line and the store."""
        known = self._store.query("SELECT run_id, finished_at FROM runs WHERE finished_at IS NOT NULL")
        times = dict(zip(known["run_id"], known["finished_at"], strict=True))
        for finding in findings:
            if finding.stored and finding.spec is not None and not self.schedule.dry:
                run_id = finding.spec.run_id
                if times.get(run_id) != finding.finished_at:
                    self._take_in(self._store.log_path(run_id))

    def _tell_of_damage(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            if finding.state == DAMAGED:
                self._observer.told(finding.message)
            elif finding.dropped_bytes and finding.spec is not None:
                log = self._store.log_path(finding.spec.run_id)
                self._observer.told(f"{log} ends in {finding.dropped_bytes} damaged bytes: what they held is redone")


@dataclass(frozen=True)
class _Progress:
    """Hears of samples: the schedule counts them, the observer shows them."""

    schedule: Schedule
    observer: Observer

    def begins(self, name: str, title: str, total: int, done: int) -> None:
        self.observer.begins(name, title, total, done)

    def advanced(self, name: str, steps: int) -> None:
        self.schedule.advanced(name, steps)
        self.observer.advanced(name, steps)
        self.observer.changed(self.schedule)


def title_of(job: Job) -> str:
    """A job in words."""
    request = job.request
    what = request.method if request.is_full else f"{request.method} at {request.budget} seed {request.seed}"
    part = f", {job.shard}" if job.shard else ""
    return f"{'timing ' if job.timing else ''}{what} on {request.model}, {request.benchmark}{part}"


def _surveys(entries: Sequence[GridCell], store: Store) -> list[Survey]:
    """One survey a model, with what the store knows of finished cells and of the time that a sample took."""
    runs = store.query(
        "SELECT cell_id, method, model, benchmark, device, machine_id, n, inference_time_s FROM runs "
        "WHERE status IN ('ok', 'failed_budget') AND n > 0"
    )
    finished = frozenset(runs["cell_id"])
    here = runs[runs["machine_id"] == environment().machine_id]
    sums = here.groupby(["method", "model", "benchmark", "device"])[["inference_time_s", "n"]].sum()
    paces = {key: row["inference_time_s"] / row["n"] for key, row in sums.iterrows()}
    by_model: dict[ModelKey, list[GridCell]] = {}
    for entry in entries:
        by_model.setdefault(model_key(Survey((entry,), finished, paces)), []).append(entry)
    return [Survey(tuple(group), finished, paces) for group in by_model.values()]
