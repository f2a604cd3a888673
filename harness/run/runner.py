"""The story of a run: words -> spec -> records -> timing -> figures -> store. Its controls run first.

Each stage hands a finished value on. A run that is done is read, not repeated; one that was cut off is continued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.flops.counted import UNCOUNTED, Spent, by_hook, counting
from harness.latency.machine import machine
from harness.latency.protocol import Protocol
from harness.latency.session import time_in_fresh_process, time_session
from harness.models.families.family import Inputs
from harness.records.errors import Interrupted, UndecodableImage
from harness.records.figures import FAILED_BUDGET, OK
from harness.records.progress import Stop, Watcher
from harness.records.provenance import git_state
from harness.records.records import FULL, RANDOM, Environment, Sample
from harness.request.opening import Bench, Cell, Sources, open_bench, sample_seed
from harness.request.request import Request
from harness.run.accuracy import answer_all
from harness.run.comparison import Comparison, compare
from harness.run.figures import figures_of
from harness.store.database import Store
from harness.store.log_reader import RunContents, read_log
from harness.store.log_writer import RunLog, lock_log
from harness.store.shards import Shard, remove_shards, set_shards_aside, shard_records, take_in_shards
from methods.base import PruningError

TURN_S = 5.0  # for a look at a log that others look at too


def run(
    request: Request,
    store: Store,
    watcher: Watcher,
    *,
    timing: Protocol | None = None,
    force: bool = False,
    stop: Stop = lambda: False,
    sources: Sources | None = None,
    told: Callable[[str], None] = lambda note: None,
) -> Comparison:
    """Run a request and the controls that it is told against; give them side by side.

    timing: None leaves the timing pass out. force: redo the asked run; its controls stay. stop: asked between
    samples. told: hears what the method has to say of this model. Raises Interrupted when told to stop, and what
    harness/records/errors.py and methods/base.py name; whatever was answered before stays in the log.
    """
    story = Story(open_bench(request, sources), store, watcher, stop, environment())
    asked = story.bench.cell(request)
    check_feasible(story.bench, asked)
    for note in asked.pruner.notes(story.bench.model.family.info) if asked.pruner else ():
        told(note)
    if asked.pruner and (force or story.contents(asked) is None):
        for note in cost_notes(story.bench, asked):
            told(note)
    if request.is_full:
        own = story.reach(asked, None, timing, force)
        return compare(own, own, None)
    full = story.reach(story.bench.cell(request.control(FULL)), None)
    random = None
    if request.budget.kind != "native" and request.method != RANDOM:
        random = story.reach(story.bench.cell(request.control(RANDOM)), full)
    return compare(story.reach(asked, full, timing, force), full, random)


@dataclass(frozen=True)
class Story:
    """What every run on one bench needs. `run` tells it for one request, a sweep for many."""

    bench: Bench
    store: Store
    watcher: Watcher
    stop: Stop
    environment: Environment

    def reach(
        self, cell: Cell, full: RunContents | None, timing: Protocol | None = None, force: bool = False
    ) -> RunContents:
        """The finished log of a cell: read if it is done, else begun or continued. full: the unpruned run's, if not
        this one. force: begin again."""
        path = self.store.log_path(cell.spec.run_id)
        contents = None if force else self.contents(cell)
        if contents is not None and self.is_done(contents, timing):
            remove_shards(path)
            self.store.ingest(path)  # a run that was killed between its last line and the store
            return contents
        if force:
            set_shards_aside(path)
        with RunLog.open(path, cell.spec, self.environment, restart=force) as log:
            take_in_shards(log, self.bench.samples)
            complete = self._answer(cell.title, cell, self.bench.samples, log)
            if complete:
                contents = self._in_order(self._time(cell, timing, log))
                figures = figures_of(contents, full or contents, self.environment.machine_id)
                log.finish(replace(figures, metrics=self.bench.metrics(contents.records.values())))
                remove_shards(path)
        self.store.ingest(path)
        contents = _read(path)
        if not complete:
            done, all_of_them = len(contents.records), len(self.bench.samples)
            raise Interrupted(f"stopped after {done} of {all_of_them} samples of {cell.title}; nothing is lost")
        return contents

    def contents(self, cell: Cell) -> RunContents | None:
        """What the log of a cell holds so far; None when there is none. Raises CorruptLog."""
        path = self.store.log_path(cell.spec.run_id)
        return read_log(path) if path.exists() else None

    def is_done(self, contents: RunContents, timing: Protocol | None = None) -> bool:
        """Whether nothing is left to answer, nor to time on this machine."""
        return _is_finished(contents) and not self._missing_sessions(contents, timing)

    def answer_shard(self, cell: Cell, shard: Shard) -> None:
        """Answer what is left of a shard, into its own log; `reach` takes that in.

        Raises StoreLocked when another process works on the shard or the whole run, Interrupted when told to stop.
        """
        path = self.store.log_path(cell.spec.run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_log(path, TURN_S).release()  # the other shards look too
        contents = self.contents(cell)
        done = {*(contents.records if contents else ()), *shard_records(path)}
        with RunLog.open(shard.log_path(path), cell.spec, self.environment) as log:
            samples = [sample for sample in shard.samples(self.bench.samples) if sample.id not in done - log.done]
            if not self._answer(f"{cell.title}, {shard}", cell, samples, log):
                raise Interrupted(f"stopped within {shard} of {cell.title}; nothing is lost")

    def _answer(self, title: str, cell: Cell, samples: Sequence[Sample], log: RunLog) -> bool:
        if len(log.done) == len(samples):
            return True
        self.watcher.begins(title, len(samples), len(log.done))
        try:
            return answer_all(self.bench.answering(cell), samples, log, self.watcher, self.stop)
        finally:
            self.watcher.ends()

    def _in_order(self, contents: RunContents) -> RunContents:
        """The same with its records in the order of the samples, whoever answered them when."""
        return replace(contents, records={sample.id: contents.records[sample.id] for sample in self.bench.samples})

    def _time(self, cell: Cell, timing: Protocol | None, log: RunLog) -> RunContents:
        """The log's contents once it has all the timing sessions that were asked for."""
        missing = self._missing_sessions(_read(log.path), timing)
        if timing is not None and missing:
            self.watcher.begins(f"timing {cell.title}", missing, 0)
            try:
                for _ in range(missing):
                    log.append(*self._session(cell, timing))
                    self.watcher.advanced()
            finally:
                self.watcher.ends()
        return _read(log.path)

    def _session(self, cell: Cell, timing: Protocol) -> list:
        if timing.sessions > 1:
            return time_in_fresh_process(cell.request, timing, self.stop)
        return time_session(self.bench.subject(cell), timing, self.stop)

    def _missing_sessions(self, contents: RunContents, timing: Protocol | None) -> int:
        """How many timing sessions on this machine the log still lacks."""
        here = {row.session for at, row in contents.latencies if at == self.environment.machine_id}
        return max(0, timing.sessions - len(here)) if timing else 0


def environment() -> Environment:
    """This machine, and the code that runs on it."""
    here, git = machine(), git_state()
    return Environment(here.id, {**here.facts(), "git_commit": git.commit, "git_dirty": git.dirty})


def check_feasible(bench: Bench, cell: Cell) -> None:
    """Plan the first sample whose image can be read, before anything runs. Raises BudgetInfeasible."""
    planner = bench.answering(cell).planner
    for _, inputs in _first(bench):
        planner.plan(inputs.shape, inputs.text)


def cost_notes(bench: Bench, cell: Cell) -> list[str]:
    """Where the FLOPs that a method declares are not those that one prefill of the first sample counts.

    That prefill is one more, of a pruner of its own: no answer, record or timed call comes from it.
    """
    assert cell.pruner is not None
    spent: list[Spent] = []
    answering = bench.answering(replace(cell, pruner=counting(cell.pruner, bench.model.family.info, spent)))
    for sample, inputs in _first(bench):
        plan, _ = answering.planner.plan(inputs.shape, inputs.text)
        try:
            answering.engine.prefill(inputs, plan, seed=sample_seed(cell.request.seed, sample.id))
        except PruningError:  # the accuracy pass says it, and of which sample
            return []
    return [
        f"{cell.spec.method} at {one}; its FLOPs ratio is told by what it declares: see `{one.declared_by}` "
        f"(counted: products; {UNCOUNTED})"
        for one in by_hook(spent)
        if one.differs
    ]


def _first(bench: Bench) -> Iterator[tuple[Sample, Inputs]]:
    """The first sample whose image can be read, as the engine takes it; nothing where there is none."""
    for sample in bench.samples:
        try:
            images = bench.benchmark.load_images(sample)
        except UndecodableImage:
            continue
        yield sample, bench.model.prepare(images, bench.benchmark.prompt(sample))
        return


def _is_finished(contents: RunContents) -> bool:
    return contents.figures is not None and contents.figures.status in (OK, FAILED_BUDGET)


def _read(path: Path) -> RunContents:
    contents = read_log(path)
    assert contents is not None  # RunLog.open wrote the header
    return contents
