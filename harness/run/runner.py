"""The story of a run: words -> spec -> records -> timing -> figures -> store. Its controls run first.

Each stage hands a finished value on. A run that is done is read, not repeated; one that was cut off is continued.
Whoever answers its questions (the accuracy pass, blind or not; another tool's task), the story is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.flops.counted import UNCOUNTED, Spent, by_hook, counting
from harness.latency.machine import machine
from harness.latency.protocol import Protocol
from harness.latency.session import time_in_fresh_process, time_session
from harness.records.errors import Interrupted
from harness.records.figures import FAILED_BUDGET, OK
from harness.records.progress import Stop, Watcher
from harness.records.provenance import git_state
from harness.records.records import FULL, RANDOM, Environment, Sample, sample_seed
from harness.request.opening import Bench, Cell, Sources, open_bench
from harness.request.request import Request
from harness.run.accuracy import Answer, Answerer, answerer_of, blind, without_images
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
    unseen: bool = False,
    timing: Protocol | None = None,
    force: bool = False,
    stop: Stop = lambda: False,
    sources: Sources | None = None,
    told: Callable[[str], None] = lambda note: None,
) -> Comparison:
    """Run a request and the controls that it is told against; give them side by side.

    unseen: answer without images, the blind control of an unpruned request, which is not timed. timing: None leaves
    the timing pass out. force: redo the asked run; its controls stay. stop: asked between samples. told: hears what
    the method and the benchmark have to say. Raises Interrupted when told to stop, and what
    harness/records/errors.py and methods/base.py name; whatever was answered before stays in the log.
    """
    story = Story(open_bench(request, sources), store, watcher, stop, environment())
    bench, answerer = story.bench, answerer_of(story.bench)
    asked = bench.cell(request)
    bench.open(asked).check_feasible()
    for note in (*(asked.pruner.notes(bench.model.family.info) if asked.pruner else ()), *bench.benchmark.notes()):
        told(note)
    if timing is not None and not bench.model.is_timed:
        told(f"{bench.model.image_backend} prepares its own prompts, which cannot be timed here: no latency")
    if asked.pruner and (force or story.contents(asked) is None):
        for note in cost_notes(bench, asked):
            told(note)
    full = random = None
    if unseen or not request.is_full:
        full = story.reach(bench.cell(request.control(FULL)), answerer)
    if not request.is_full and request.budget.kind != "native" and request.method != RANDOM:
        random = story.reach(bench.cell(request.control(RANDOM)), answerer, full)
    if unseen:
        own = story.reach(without_images(asked), blind, full, force=force)
    else:
        own = story.reach(asked, answerer, full, timing, force)
    return compare(own, full or own, random)


@dataclass(frozen=True)
class Story:
    """What every run on one bench needs. `run` tells it for one request, a sweep for many."""

    bench: Bench
    store: Store
    watcher: Watcher
    stop: Stop
    environment: Environment

    def reach(
        self,
        cell: Cell,
        answerer: Answerer,
        full: RunContents | None = None,
        timing: Protocol | None = None,
        force: bool = False,
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
        with RunLog.open(path, cell.spec, self._here, restart=force) as log:
            take_in_shards(log, self.bench.samples)
            complete = self._answer(cell.title, cell, answerer, self.bench.samples, log)
            if complete:
                self._time(cell, timing, log)
                self._conclude(full, log)
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
        """True if every sample is answered and timed on this machine."""
        return _is_finished(contents) and not self._missing_sessions(contents, timing)

    def answer_shard(self, cell: Cell, answerer: Answerer, shard: Shard) -> None:
        """Answer what is left of a shard, into its own log; `reach` takes that in.

        Raises StoreLocked when another process works on the shard or the whole run, Interrupted when told to stop.
        """
        path = self.store.log_path(cell.spec.run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_log(path, TURN_S).release()  # the other shards look too
        contents = self.contents(cell)
        done = {*(contents.records if contents else ()), *shard_records(path)}
        with RunLog.open(shard.log_path(path), cell.spec, self._here) as log:
            samples = [sample for sample in shard.samples(self.bench.samples) if sample.id not in done - log.done]
            if not self._answer(f"{cell.title}, {shard}", cell, answerer, samples, log):
                raise Interrupted(f"stopped within {shard} of {cell.title}; nothing is lost")

    @property
    def _here(self) -> Environment:
        """This machine, and what the benchmark has to say of the run."""
        facts = self.bench.benchmark.facts(self.bench.model)
        return replace(self.environment, facts={**self.environment.facts, **facts})

    def _answer(self, title: str, cell: Cell, answerer: Answerer, samples: Sequence[Sample], log: RunLog) -> bool:
        if len(log.done) == len(samples):
            return True
        self.watcher.begins(title, len(samples), len(log.done))
        try:
            with answerer(self.bench, cell) as answer:
                return answer_all(answer, samples, log, self.watcher, self.stop)
        finally:
            self.watcher.ends()

    def _time(self, cell: Cell, timing: Protocol | None, log: RunLog) -> None:
        """Add the timing sessions that were asked for and are not there yet."""
        missing = self._missing_sessions(_read(log.path), timing)
        if timing is not None and missing:
            self.watcher.begins(f"timing {cell.title}", missing, 0)
            try:
                for _ in range(missing):
                    log.append(*self._session(cell, timing))
                    self.watcher.advanced()
            finally:
                self.watcher.ends()

    def _session(self, cell: Cell, timing: Protocol) -> list:
        if timing.sessions > 1:
            return time_in_fresh_process(cell.request, timing, self.stop, self.bench.foreign)
        return time_session(self.bench.open(cell), timing, self.stop)

    def _conclude(self, full: RunContents | None, log: RunLog) -> None:
        """Write the figures of a run whose answers are all there, in the order of the samples, whoever gave them when.

        Scores that only the whole run gives are written first.
        """
        contents = _read(log.path)
        records, metrics = self.bench.judged(contents.records, log.path.with_suffix(""))
        if scored := [record for name, record in records.items() if record != contents.records[name]]:
            log.append(*scored)
        contents = replace(contents, records=records)
        figures = figures_of(contents, full or contents, self.environment.machine_id)
        log.finish(replace(figures, metrics=metrics))

    def _missing_sessions(self, contents: RunContents, timing: Protocol | None) -> int:
        """How many timing sessions on this machine the log still lacks."""
        if timing is None or not self.bench.model.is_timed:
            return 0
        here = {row.session for at, row in contents.latencies if at == self.environment.machine_id}
        return max(0, timing.sessions - len(here))


def answer_all(answer: Answer, samples: Sequence[Sample], log: RunLog, watcher: Watcher, stop: Stop) -> bool:
    """Append a record for every sample that the log lacks; True when all are there, False when asked to stop.

    Samples are answered in order, each record safe in the log before the next begins.
    """
    missing = [sample for sample in samples if sample.id not in log.done]
    for sample in missing:
        if stop():
            return False
        log.append(answer(sample))
        watcher.advanced()
    return True


def environment() -> Environment:
    """This machine, and the code that runs on it."""
    here, git = machine(), git_state()
    return Environment(here.id, {**here.facts(), "git_commit": git.commit, "git_dirty": git.dirty})


def cost_notes(bench: Bench, cell: Cell) -> list[str]:
    """Where the FLOPs that a method declares are not those that one prefill of the first sample counts.

    That prefill is one more, of a pruner of its own: no answer, record or timed call comes from it.
    """
    assert cell.pruner is not None
    spent: list[Spent] = []
    run = replace(bench.open(cell), pruner=counting(cell.pruner, bench.model.family.info, spent))
    first = run.first_inputs()
    if first is None:
        return []
    sample, inputs = first
    plan, _ = run.planner.plan(inputs.shape, inputs.text)
    try:
        run.engine.prefill(inputs, plan, seed=sample_seed(run.seed, sample.id))
    except PruningError:  # the accuracy pass says it, and of which sample
        return []
    return [
        f"{cell.spec.method} at {one}; its FLOPs ratio is told by what it declares: see `{one.declared_by}` "
        f"(counted: products; {UNCOUNTED})"
        for one in by_hook(spent)
        if one.differs
    ]


def _is_finished(contents: RunContents) -> bool:
    return contents.figures is not None and contents.figures.status in (OK, FAILED_BUDGET)


def _read(path: Path) -> RunContents:
    contents = read_log(path)
    assert contents is not None  # RunLog.open wrote the header
    return contents
