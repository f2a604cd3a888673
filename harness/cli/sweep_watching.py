"""What people see while a sweep goes on: a live table on a terminal, a line for each finished cell elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

from harness.cli.printing import tell
from harness.cli.sweep_telling import duration
from harness.sweep.schedule import CellState, Schedule
from harness.sweep.tasks import Outcome


@dataclass
class _Line:
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
        self.lines: dict[str, _Line] = {}

    def begins(self, name: str, title: str, total: int, done: int) -> None:
        self.lines[name] = _Line(title, total, done)

    def advanced(self, name: str, steps: int) -> None:
        if name in self.lines:
            self.lines[name].done += steps

    def changed(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.lines = {name: line for name, line in self.lines.items() if name in schedule.running}

    def settled(self, cell: CellState, outcome: Outcome) -> None:
        request = cell.request
        what = "unpruned" if request.is_full else f"{request.method} at {request.budget}, seed {request.seed}"
        where = f"{request.model}, {request.benchmark}"
        why = f": {cell.message}" if cell.message else ""
        self.told(f"{self.progress()} {what} on {where}: {cell.status} in {duration(outcome.seconds)}{why}")

    def told(self, message: str) -> None:
        tell(message)

    def progress(self) -> str:
        """How many cells are settled, and how long the others may take."""
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
