"""Which task comes next: surveys first, no pruning before what is told against it, answering before timing.

Pure bookkeeping: no process, no file, no clock of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from harness.records.figures import ERROR, INFEASIBLE, OK, UNSUPPORTED
from harness.records.records import FULL, digest
from harness.request.request import Request
from harness.store.shards import Shard
from harness.sweep.tasks import (
    BUSY,
    DISK_FULL,
    MISSING,
    STALE,
    STOPPED,
    Finding,
    Job,
    ModelKey,
    Survey,
    Task,
    TaskOutcome,
    model_key,
)

RETRIES = 2  # of a task that failed; a job goes on from its own log


@dataclass
class CellState:
    """One cell while the sweep goes on. status: a state of its finding, later the status of its run.

    ran: whether this sweep did something for it. left_s: rough seconds of work that are left.
    """

    finding: Finding
    status: str
    message: str
    floor_tokens: float | None
    left_s: float
    ran: bool = False

    @property
    def request(self) -> Request:
        return self.finding.entry.request

    @property
    def has_work(self) -> bool:
        """Whether something is to be answered or timed, besides storing why it cannot be."""
        return self.status == MISSING or (self.status == OK and self.finding.untimed)


@dataclass
class Schedule:
    """The tasks of a sweep and what became of its cells. Times are seconds of the caller's clock.

    redo_stale: answer again what only older code has answered. dry: find out what is left, and do nothing about it.
    shard_samples: a cell with more samples left than that is shared by several jobs of about as many.
    """

    surveys: list[Survey]
    redo_stale: bool = False
    dry: bool = False
    shard_samples: int | None = None
    cells: dict[str, CellState] = field(default_factory=dict)
    stopped: TaskOutcome | None = None
    used_s: float = 0.0
    running: dict[str, Task] = field(default_factory=dict)
    _jobs: list[Job] = field(default_factory=list)
    _failures: Counter[str] = field(default_factory=Counter)
    _resting: dict[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether nothing runs and nothing will."""
        return not self.running and (self.stopped is not None or not (self.surveys or self._jobs))

    @property
    def left_s(self) -> float:
        """Rough seconds of work that are left, whoever does it."""
        return sum(cell.left_s for cell in self.cells.values() if cell.has_work)

    def next(self, held: ModelKey | None, now: float) -> tuple[str, Task] | None:
        """A task, with its name, for a worker that has the model `held` open; None while there is none."""
        if self.stopped or any(isinstance(task, Job) and task.timing for task in self.running.values()):
            return None
        task: Task | None = self.surveys.pop(0) if self.surveys else self._choose(held, now)
        if task is None:
            return None
        name = name_of(task)
        self.running[name] = task
        return name, task

    def _choose(self, held: ModelKey | None, now: float) -> Job | None:
        """The first ready job, of the model `held` if there is one; a timing job needs the machine for itself."""
        answering = [job for job in self._jobs if job.timing is None]
        waiting = answering or ([] if self.running else self._jobs)
        ready = [job for job in waiting if self._is_ready(job, now)]
        job = min(ready, key=lambda one: model_key(one) != held, default=None)
        if job is not None:
            self._jobs.remove(job)
        return job

    def _is_ready(self, job: Job, now: float) -> bool:
        if job.shard is None and any(
            isinstance(other, Job) and other.shard and other.spec == job.spec
            for other in (*self._jobs, *self.running.values())
        ):
            return False
        full = self.cells[cell_of(job.request.control(FULL))]
        return self._resting.get(name_of(job), now) <= now and (job.request.is_full or full.status == OK)

    def advanced(self, name: str, steps: int) -> None:
        """A running job has done so many of its samples."""
        job = self.running.get(name)
        if isinstance(job, Job) and job.timing is None:
            cell = self.cells[cell_of(job.request)]
            spent = min(cell.left_s, steps * cell.finding.pace_s)
            cell.left_s -= spent
            self.used_s += spent

    def surveyed(self, name: str, findings: Sequence[Finding]) -> None:
        """Take in what a survey found: what is left of its cells becomes jobs."""
        survey = self.running.pop(name)
        assert isinstance(survey, Survey)
        states = [CellState(one, one.state, one.message, one.floor_tokens, one.estimate_s) for one in findings]
        self.cells |= {cell_of(state.request): state for state in states}
        if len(findings) < len(survey.entries):
            self.stopped = TaskOutcome(STOPPED)
            return
        self._refresh(states)
        if not self.dry:
            self._jobs += [job for state in states for job in _jobs_of(state, self.shard_samples)]
        self._give_up_dependents()

    def _refresh(self, states: Sequence[CellState]) -> None:
        """Stale cells that are to be redone become missing; so do unpruned runs that something else needs."""
        for state in states:
            if state.status == STALE and self.redo_stale:
                state.status = MISSING
        for state in states:
            full = self.cells[cell_of(state.request.control(FULL))]
            if state.has_work and full.status == STALE:
                full.status = MISSING

    def failed(self, name: str, outcome: TaskOutcome) -> None:
        """A survey failed: it is tried again, and in the end all its cells have failed."""
        survey = self.running[name]
        assert isinstance(survey, Survey)
        self._failures[name] += 1
        if self._failures[name] > RETRIES:
            self.surveyed(name, [Finding(entry, None, ERROR, outcome.message) for entry in survey.entries])
        else:
            del self.running[name]
            self.surveys.append(survey)

    def done(self, name: str, outcome: TaskOutcome, again_at: float) -> CellState | None:
        """Take in how a job ended. Gives its cell if that is settled now, None if the job goes back to the queue.

        again_at: when to look again at a cell that another process works on.
        """
        job = self.running.pop(name)
        assert isinstance(job, Job)
        if outcome.status in (STOPPED, DISK_FULL):
            self.stopped = outcome if outcome.status == DISK_FULL else self.stopped or outcome
            return None
        cell = self.cells[cell_of(job.request)]
        if job.shard is not None and (outcome.status == OK or cell.status != MISSING):
            return None  # the job that puts the shards together settles the cell, or another shard's failure has
        self._failures[name] += outcome.again
        if outcome.status == BUSY or (outcome.again and self._failures[name] <= RETRIES):
            self._resting[name] = again_at if outcome.status == BUSY else 0.0
            self._jobs.append(job)
            return None
        cell.status, cell.message, cell.floor_tokens = outcome.status, outcome.message, outcome.floor_tokens
        cell.ran = True
        if outcome.status != OK:
            self._jobs = [other for other in self._jobs if other.spec != job.spec]
        if not any(other.spec == job.spec for other in self._jobs):
            cell.finding, cell.left_s = replace(cell.finding, untimed=False), 0.0
        self._give_up_dependents()
        return cell

    def _give_up_dependents(self) -> None:
        """Cells whose unpruned run has failed cannot be told against it."""
        for job in list(self._jobs):
            full = self.cells[cell_of(job.request.control(FULL))]
            if full.status not in (OK, MISSING):
                self._jobs.remove(job)
                cell = self.cells[cell_of(job.request)]
                if not job.request.is_full and cell.status == MISSING:
                    cell.status, cell.message = ERROR, f"its unpruned run is {full.status}: {full.message}"


def _jobs_of(state: CellState, shard_samples: int | None) -> list[Job]:
    """What is to be done for a cell: answer its shards, put them together, time it, or say why it cannot be run."""
    finding, request = state.finding, state.request
    if finding.spec is None:
        return []
    answer = Job(request, finding.spec)
    timing = [replace(answer, timing=finding.entry.timing)] if finding.untimed else []
    if state.status == MISSING:
        count = ceil(finding.samples_left / shard_samples) if shard_samples else 0
        shards = [replace(answer, shard=Shard(index, count)) for index in range(count)] if count > 1 else []
        return [*shards, answer, *timing]
    if state.status in (INFEASIBLE, UNSUPPORTED):
        return [] if finding.stored else [answer]
    return timing if state.status == OK else []


def cell_of(request: Request) -> str:
    """A name for a request."""
    return digest({**vars(request), "budget": str(request.budget), "settings": dict(request.settings)})


def name_of(task: Task) -> str:
    """A name for a task."""
    if isinstance(task, Survey):
        return f"survey {cell_of(task.entries[0].request)}"
    what = "time" if task.timing else f"answer {task.shard}," if task.shard else "answer"
    return f"{what} {cell_of(task.request)}"
