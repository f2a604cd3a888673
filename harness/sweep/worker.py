"""The place where tasks are done: it keeps one model open, and gives every cell to the same runner as `harness run`.

One lives in each worker, whatever the engine. It writes logs only; the sweep takes them into the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from harness.integrations.lmms_eval.opening import SOURCES
from harness.models.loading import OpenModel
from harness.records.errors import (
    CorruptLog,
    DiskFull,
    EnvironmentProblem,
    HarnessError,
    Interrupted,
    StoreLocked,
    UsageError,
)
from harness.records.figures import ERROR, INFEASIBLE, OK, UNSUPPORTED, Figures
from harness.records.progress import Stop, Watcher
from harness.records.records import FULL, Environment
from harness.records.run_spec import RunSpec
from harness.request.opening import Bench, Cell, Sources, open_bench
from harness.request.request import Request
from harness.run.accuracy import answerer_of
from harness.run.runner import Story, environment
from harness.store.database import Store
from harness.store.log_reader import RunContents
from harness.store.log_writer import RunLog
from harness.store.shards import shard_records
from harness.sweep.grid import GridCell
from harness.sweep.tasks import (
    BUSY,
    DAMAGED,
    DISK_FULL,
    MISSING,
    STALE,
    STOPPED,
    Finding,
    Job,
    Result,
    Survey,
    Task,
    TaskOutcome,
    pace_key,
)
from methods.base import BudgetInfeasible, MissingSignal, PruningError

PROBED = 3  # samples that are answered to learn how long one takes, the first of them not counted
CHANGED = "the code that gives answers changed while the sweep ran; run it again"


class Logs(Store):
    """The logs beside a store, for a worker: it never opens the database."""

    def ingest(self, log: Path) -> str:
        return log.stem


class Workshop:
    """Does surveys and jobs, one at a time."""

    def __init__(self, store: Path, sources: Sources | None = None):
        self._logs = Logs(store)
        self._environment = environment()
        self._sources = _kept_open(sources or SOURCES)
        self._paces: dict[tuple[str, str], float] = {}

    def do(self, task: Task, watcher: Watcher, stop: Stop) -> Result:
        """The result of a task. Whatever goes wrong in it is a part of the result."""
        if isinstance(task, Survey):
            return tuple(self._look(entry, task, watcher) for entry in task.entries if not stop())
        began = time.perf_counter()
        try:
            outcome = self._run(task, watcher, stop)
        except Exception as problem:  # a method may raise anything, and the sweep goes on
            outcome = self._concluded(task, outcome_of(problem))
        return replace(outcome, seconds=time.perf_counter() - began)

    def _run(self, job: Job, watcher: Watcher, stop: Stop) -> TaskOutcome:
        story = self._story(job.request, watcher, stop)
        cell = story.bench.cell(job.request)
        if cell.spec != job.spec:
            raise UsageError(CHANGED)
        story.bench.open(cell).check_feasible()
        answerer = answerer_of(story.bench)
        if job.shard is not None:
            story.answer_shard(cell, answerer, job.shard)
            return TaskOutcome(OK)
        full = None if job.request.is_full else _unpruned(story, job)
        figures = story.reach(cell, answerer, full, job.timing).figures
        assert figures is not None  # reach gives finished logs only
        return TaskOutcome(figures.status, figures.message)

    def _concluded(self, job: Job, outcome: TaskOutcome) -> TaskOutcome:
        """The outcome, once the log says why a cell has no figures, where that will not change."""
        if outcome.status not in (INFEASIBLE, UNSUPPORTED):
            return outcome
        try:
            conclude(self._logs, job.spec, self._environment, outcome)
        except HarnessError as problem:
            return outcome_of(problem)
        return outcome

    def _look(self, entry: GridCell, survey: Survey, watcher: Watcher) -> Finding:
        """What is left of one cell."""
        try:
            story = self._story(entry.request, watcher, lambda: False)
            cell = story.bench.cell(entry.request)
        except (HarnessError, PruningError) as problem:
            return Finding(entry, None, ERROR, str(problem))
        try:
            finding = self._read(story, cell, entry, survey)
            if finding.state in (MISSING, STALE):
                story.bench.open(cell).check_feasible()
        except Exception as problem:  # a method may raise anything; where another try may help, its job tells more
            found = outcome_of(problem)
            state = MISSING if found.again else DAMAGED if isinstance(problem, CorruptLog) else found.status
            untimed = entry.timing is not None
            return Finding(entry, cell.spec, state, found.message, found.floor_tokens, untimed=untimed)
        if not finding.samples_left and not finding.untimed:
            return finding
        pace = survey.paces.get(pace_key(cell.spec)) or self._probe(story.bench, cell)
        return replace(finding, pace_s=pace, estimate_s=_estimate(finding, pace))

    def _read(self, story: Story, cell: Cell, entry: GridCell, survey: Survey) -> Finding:
        """What the log of a cell says. Raises CorruptLog."""
        untimed, contents = entry.timing is not None, story.contents(cell)
        answered = {*(contents.records if contents else ()), *shard_records(self._logs.log_path(cell.spec.run_id))}
        left = len(story.bench.samples) - len(answered)
        if contents is None:
            state = STALE if cell.spec.cell_id in survey.finished and not answered else MISSING
            return Finding(entry, cell.spec, state, samples_left=left, untimed=untimed)
        figures, dropped = contents.figures, contents.dropped_bytes
        if figures is not None and figures.status in (INFEASIBLE, UNSUPPORTED):
            found = Finding(entry, cell.spec, figures.status, figures.message, figures.floor_tokens, stored=True)
            return replace(found, finished_at=contents.finished_at)
        if figures is not None and story.is_done(contents):
            untimed = not story.is_done(contents, entry.timing)
            found = Finding(entry, cell.spec, figures.status, figures.message, untimed=untimed, dropped_bytes=dropped)
            return replace(found, stored=True, finished_at=contents.finished_at)
        return Finding(entry, cell.spec, MISSING, samples_left=left, untimed=untimed, dropped_bytes=dropped)

    def _probe(self, bench: Bench, cell: Cell) -> float:
        """Seconds that a sample takes without pruning, measured once for a model and benchmark."""
        key = (cell.spec.model, cell.spec.benchmark)
        if key not in self._paces:
            with answerer_of(bench)(bench, bench.cell(cell.request.control(FULL))) as answer:
                seconds = [answer(sample).seconds for sample in islice(bench.samples, PROBED)]
            self._paces[key] = min(seconds[1:] or seconds)
        return self._paces[key]

    def _story(self, request: Request, watcher: Watcher, stop: Stop) -> Story:
        return Story(open_bench(request, self._sources), self._logs, watcher, stop, self._environment)


def conclude(store: Store, spec: RunSpec, environment: Environment, outcome: TaskOutcome) -> None:
    """Let the log of a cell say why it has no figures. Raises StoreLocked, CorruptLog, DiskFull."""
    with RunLog.open(store.log_path(spec.run_id), spec, environment) as log:
        log.finish(Figures(outcome.status, outcome.message, n=len(log.done), floor_tokens=outcome.floor_tokens))


def outcome_of(problem: BaseException) -> TaskOutcome:
    """What an exception means for a cell; one raised `from` another means what that one does."""
    message = str(problem) or type(problem).__name__
    match problem:
        case BudgetInfeasible():
            return TaskOutcome(INFEASIBLE, message, problem.floor)
        case MissingSignal():
            return TaskOutcome(UNSUPPORTED, message)
        case Interrupted():
            return TaskOutcome(STOPPED, message)
        case StoreLocked():
            return TaskOutcome(BUSY, message)
        case DiskFull():
            return TaskOutcome(DISK_FULL, message)
        case CorruptLog() | UsageError() | EnvironmentProblem():
            return TaskOutcome(ERROR, message)
        case HarnessError() if problem.__cause__ is not None:
            return replace(outcome_of(problem.__cause__), message=message)
        case _:
            known = isinstance(problem, HarnessError | PruningError)
            return TaskOutcome(ERROR, message if known else f"{type(problem).__name__}: {message}", again=True)


def _estimate(finding: Finding, pace_s: float) -> float:
    """Rough seconds that a cell needs: its answers, then its timed pairs."""
    answering, timing = finding.samples_left * pace_s, finding.entry.timing
    if timing is None or not finding.untimed:
        return answering
    return answering + (timing.seconds or (timing.pairs or 0) * timing.sessions * 2 * pace_s)


def _unpruned(story: Story, job: Job) -> RunContents:
    """The finished run that a job's figures are told against."""
    full = story.contents(story.bench.cell(job.request.control(FULL)))
    if full is None or not story.is_done(full):
        raise UsageError("its unpruned run is not finished; run the sweep again")
    return full


def _kept_open(sources: Sources) -> Sources:
    """The same sources, which remember every benchmark and the last model that they gave."""
    return replace(sources, model=_OneModel(sources.model), benchmark=cache(sources.benchmark))


class _OneModel:
    """Opens models; the last one stays, and goes before the next one comes."""

    def __init__(self, opener: Callable[..., OpenModel]):
        self._opener = opener
        self._words: tuple[Any, ...] = ()
        self._model: OpenModel | None = None

    def __call__(self, name: str, **settings: str) -> OpenModel:
        words = (name, *sorted(settings.items()))
        if self._model is None or words != self._words:
            self._model = None
            self._model, self._words = self._opener(name, **settings), words
        return self._model
