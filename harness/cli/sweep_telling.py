"""A sweep's report as a JSON document, as a table, and as words: what failed, and the command that redoes it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from harness.cli.printing import print_rows, tell
from harness.records.figures import ERROR, FAILED_BUDGET, INFEASIBLE, OK, UNSUPPORTED
from harness.request.request import Request
from harness.store.database import Store
from harness.sweep.loop import SweepReport
from harness.sweep.schedule import CellState, Schedule
from harness.sweep.tasks import DAMAGED, MISSING, STALE, TaskOutcome

GROUPS: Mapping[str, Sequence[str]] = {
    "done": (OK,),
    "missing": (MISSING,),
    "stale": (STALE,),
    "infeasible": (INFEASIBLE,),
    "unsupported": (UNSUPPORTED,),
    "failed": (ERROR, FAILED_BUDGET, DAMAGED),
}
COLUMNS = ("model", "benchmark", "method", "budget", "seed", "status", "accuracy", "ra", "message")


def document(report: SweepReport, store: Store, dry: bool, workers: int) -> dict[str, Any]:
    """The JSON of a sweep: every cell under what it is. Keys are a promise: add, and never rename."""
    rows = {row["run_id"]: row for row in store.runs().to_dict("records")}
    cells = [_cell(state, store, rows) for state in report.cells]
    groups = {group: [cell for cell in cells if cell["status"] in states] for group, states in GROUPS.items()}
    return {
        **groups,
        "ran": sum(state.ran for state in report.cells),
        "dry_run": dry,
        "estimate_s": round(report.left_s / workers, 1),
        "seconds": round(report.seconds, 1),
        "stopped": report.stopped,
        "store": str(store.path),
    }


def _cell(state: CellState, store: Store, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    request, spec = state.request, state.finding.spec
    run_id = spec.run_id if spec else None
    row = rows.get(run_id or "", {})
    return {
        "model": request.model,
        "benchmark": request.benchmark,
        "method": request.method,
        "settings": dict(request.settings),
        "budget": str(request.budget),
        "seed": request.seed,
        "run_id": run_id,
        "status": MISSING if state.has_work else state.status,
        "message": state.message or ("only its timing is left" if state.has_work and state.status == OK else ""),
        "floor_tokens": state.floor_tokens,
        "accuracy": row.get("accuracy"),
        "ra": row.get("ra"),
        "estimate_s": round(state.left_s, 1) if state.has_work else 0.0,
        "command": shlex.join(command_of(request, store, state.status)),
    }


def command_of(request: Request, store: Store, status: str) -> list[str]:
    """The one command that does a cell again; a finished or damaged one is begun again."""
    usual = Request(request.method, request.budget)
    words = ["harness", "run", "--method", request.method]
    if not request.is_full:
        words += ["--budget", str(request.budget)]
    words += ["--model", request.model, "--benchmark", request.benchmark]
    for key, value in request.settings.items():
        words += ["--set", f"{key}={value}"]
    for name in ("seed", "limit", "dtype", "device", "attention", "image_backend", "data_dir"):
        if getattr(request, name) != getattr(usual, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(request, name))]
    words += ["--stream"] if request.stream else []
    words += ["--no-timing", "--store", str(store.path)]
    return [*words, "--force"] if status in (OK, FAILED_BUDGET, DAMAGED) else words


def print_summary(told: Mapping[str, Any]) -> None:
    """The table of all cells on stdout."""
    print_rows([cell for group in GROUPS for cell in told[group]], COLUMNS)


def tell_summary(told: Mapping[str, Any]) -> None:
    """Print counts and failures on stderr."""
    counts = {group: len(told[group]) for group in GROUPS}
    total = sum(counts.values())
    said = ", ".join(f"{count} {group}" for group, count in counts.items() if count)
    if told["dry_run"]:
        tell(f"{total} cells: {said}; about {duration(told['estimate_s'])} of work is left")
    elif not told["ran"] and not told["stopped"]:
        tell(f"nothing to do for {total} cells: {said}")
    else:
        tell(f"{total} cells: {said}; {told['ran']} of them in {duration(told['seconds'])}")
    if counts["stale"]:
        tell(f"{counts['stale']} cells were answered by older code: --redo-stale answers them again")
    for cell in told["failed"]:
        tell(f"{cell['method']} at {cell['budget']} seed {cell['seed']} is {cell['status']}: {cell['message']}")
        tell(f"  again: {cell['command']}")


def duration(seconds: float) -> str:
    """Seconds in words: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@dataclass
class _Running:
    """A task that runs."""

    title: str
    total: int
    done: int


class Watch:
    """An `Observer` that says one line a finished cell, and keeps count of what runs."""

    def __init__(self, cells: int, workers: int):
        self._cells = cells
        self._workers = workers
        self._began = time.monotonic()
        self.schedule: Schedule | None = None
        self.lines: dict[str, _Running] = {}

    def begins(self, name: str, title: str, total: int, done: int) -> None:
        self.lines[name] = _Running(title, total, done)

    def advanced(self, name: str, steps: int) -> None:
        if name in self.lines:
            self.lines[name].done += steps

    def changed(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.lines = {name: line for name, line in self.lines.items() if name in schedule.running}

    def settled(self, cell: CellState, outcome: TaskOutcome) -> None:
        request = cell.request
        what = "unpruned" if request.is_full else f"{request.method} at {request.budget}, seed {request.seed}"
        where = f"{request.model}, {request.benchmark}"
        why = f": {cell.message}" if cell.message else ""
        self.told(f"{self.progress()} {what} on {where}: {cell.status} in {duration(outcome.seconds)}{why}")

    def told(self, message: str) -> None:
        tell(message)

    def progress(self) -> str:
        """Count of settled cells, and the time that the others may take."""
        schedule = self.schedule
        if schedule is None or not schedule.cells:
            return f"[0/{self._cells}]"
        settled = sum(not cell.has_work for cell in schedule.cells.values())
        elapsed = time.monotonic() - self._began
        rate = schedule.used_s / elapsed if schedule.used_s > 1 else self._workers
        left = f", {duration(schedule.left_s / rate)} left" if schedule.left_s else ""
        return f"[{settled}/{self._cells}{left}]"


class LiveWatch(Watch):
    """The same on a terminal: above it the finished cells, below them a table of what runs."""

    def __init__(self, cells: int, workers: int, console: Console):
        super().__init__(cells, workers)
        self._console = console
        self.live = Live(console=console, get_renderable=self._table, refresh_per_second=4, transient=True)

    def told(self, message: str) -> None:
        self._console.print(f"harness: {message}", highlight=False, markup=False)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for line in list(self.lines.values()):
            table.add_row(line.title, f"{line.done}/{line.total}")
        table.add_row(self.progress(), "")
        return table


@contextmanager
def watching(cells: int, workers: int) -> Iterator[Watch]:
    """An observer for as long as the sweep goes on."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Watch(cells, workers)
        return
    watch = LiveWatch(cells, workers, console)
    with watch.live:
        yield watch
