"""The story of a bridged run: their evaluator asks and scores, our log keeps every answer, our store the outcome.

Its controls run first, each once, as for any other run. One evaluation holds one task and one pruner, so that a task
that fails takes no other with it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from harness.integrations.lmms_eval.adapter import Adapter
from harness.integrations.lmms_eval.answer import outcome_of
from harness.integrations.lmms_eval.installed import VERSION
from harness.integrations.lmms_eval.native import Answer, Answering
from harness.integrations.lmms_eval.tasks import Task
from harness.models.loading import OpenModel
from harness.records.errors import Interrupted
from harness.records.figures import FAILED_BUDGET, OK
from harness.records.progress import Stop, Watcher
from harness.records.records import FULL, RANDOM, Environment
from harness.request.opening import Cell
from harness.request.request import Request
from harness.run.comparison import Comparison, compare
from harness.run.figures import figures_of
from harness.run.runner import environment
from harness.store.database import Store
from harness.store.log_reader import RunContents, read_log
from harness.store.log_writer import RunLog
from methods import build


class Host(Protocol):
    """A model that answers: `Ours` or `Wrapped`."""

    model: OpenModel

    @property
    def is_simple(self) -> bool: ...

    def answering(self, cell: Cell) -> Any:
        """A context manager that gives an `Answer`."""


@dataclass(frozen=True)
class Bridge:
    """What every bridged run shares. manager: lmms-eval's TaskManager; prompt_as: whose prompts the tasks give."""

    host: Host
    manager: Any
    prompt_as: str
    store: Store
    watcher: Watcher
    stop: Stop

    def run(self, task: Task, request: Request, force: bool = False) -> Comparison:
        """A request on a task beside its controls. Raises BudgetInfeasible, HarnessError."""
        cell = self._cell(task, request)
        if images := task.first_pictures():
            Answering.of(self.host.model, cell).check_feasible(images)
        if request.is_full:
            own = self._reach(task, cell, None, force)
            return compare(own, own, None)
        full = self._reach(task, self._cell(task, request.control(FULL)), None)
        random = None
        if request.budget.kind != "native" and request.method != RANDOM:
            random = self._reach(task, self._cell(task, request.control(RANDOM)), full)
        return compare(self._reach(task, cell, full, force), full, random)

    def _cell(self, task: Task, request: Request) -> Cell:
        pruner, model = build(request.method, **request.settings), self.host.model
        ran = {name: getattr(model, name) for name in ("dtype", "attention", "image_backend")}
        request = replace(request, benchmark=task.name, **ran)
        return Cell(request, None if request.is_full else pruner, request.specify(pruner, model, task, task.samples))

    def _reach(self, task: Task, cell: Cell, full: RunContents | None, force: bool = False) -> RunContents:
        """The finished log of a cell: read if it is done, else begun or continued."""
        path = self.store.log_path(cell.spec.run_id)
        done = read_log(path) if path.exists() and not force else None
        if done is None or done.figures is None or done.figures.status not in (OK, FAILED_BUDGET):
            try:
                self._evaluate(task, cell, full, path, force)
            except Interrupted:
                self.store.ingest(path)
                raise
        self.store.ingest(path)
        return _read(path)

    def _evaluate(self, task: Task, cell: Cell, full: RunContents | None, path: Path, force: bool) -> None:
        here = self._environment(task)
        with RunLog.open(path, cell.spec, here, restart=force) as log:
            self.watcher.begins(f"{task.their_name}, {cell.title}", len(task.samples), len(log.done))
            try:
                with self.host.answering(cell) as answer:
                    results = self._their_evaluator(task, cell, answer, log)
            finally:
                self.watcher.ends()
            outcome = outcome_of(results, task.their_name)
            log.append(*outcome.scored(_read(path).records))
            contents = _read(path)
            figures = figures_of(contents, full or contents, here.machine_id)
            log.finish(replace(figures, metrics=outcome.metrics))

    def _their_evaluator(self, task: Task, cell: Cell, answer: Answer, log: RunLog) -> Mapping[str, Any]:
        from lmms_eval.evaluator import simple_evaluate

        with redirect_stdout(sys.stderr):
            theirs = task.opened()
            adapter = Adapter(answer, theirs, log, cell.request.seed, (self.watcher, self.stop))
            adapter.is_simple = self.host.is_simple
            return simple_evaluate(
                model=adapter,
                tasks=[theirs],
                task_manager=self.manager,
                limit=cell.request.limit,
                use_cache=None,
                log_samples=True,
                bootstrap_iters=0,
                process_docs_parallel=1,
                cli_args=_their_arguments(log.path.with_suffix("")),
            )

    def _environment(self, task: Task) -> Environment:
        here = environment()
        bridge = {
            "tool": f"lmms-eval {VERSION}",
            "prompt_as": self.prompt_as,
            "flags": list(task.flags),
            "pixels": str(self.host.model.processor.image_processor.size),
        }
        return Environment(here.machine_id, {**here.facts, "bridge": bridge})


def _their_arguments(folder: Path) -> SimpleNamespace:
    """What their scoring reads of their command line: where it may write files for a test server, and little else."""
    return SimpleNamespace(output_path=str(folder), process_with_media=True, log_samples_suffix="", model="pruned")


def _read(path: Path) -> RunContents:
    contents = read_log(path)
    assert contents is not None  # RunLog.open wrote the header
    return contents
