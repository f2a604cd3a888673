"""Sweeps by worker processes: the same records as in one process, whoever is killed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from sweeps import (
    Notes,
    crew_of,
    entries,
    lines_in,
    records,
    statuses,
    sweep,
    sweep_apart,
    tables,
    tiny_sources,
    workers_of,
)

from harness.figures import OK
from harness.store import Store
from harness.sweep.crew import Processes

GRID: dict[str, Any] = {"methods": ("divprune", "random"), "limit": 6}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.duckdb", tell=lambda message: None)


@pytest.fixture
def undisturbed(tmp_path: Path, suite_folder: Path) -> Store:
    """What one process makes of the same grid."""
    store = Store(tmp_path / "undisturbed.duckdb")
    sweep(entries(**GRID), store, tiny_sources(suite_folder))
    return store


class Killer(Notes):
    """An observer that kills a busy worker after some samples, so many times."""

    def __init__(self, after: int, times: int):
        super().__init__()
        self.crew: Processes | None = None
        self._after, self._times = after, times

    def advanced(self, name: str, steps: int) -> None:
        super().advanced(name, steps)
        if self.steps % self._after == 0 and self._times:
            assert self.crew is not None
            self._times -= 1
            next(one for one in self.crew._workers.values() if one.name == name).process.kill()


def with_killer(store: Store, suite: Path, killer: Killer, workers: int) -> Processes:
    killer.crew = crew_of(store, suite, workers)
    return killer.crew


def test_killed_workers_are_replaced_and_the_tables_equal_those_of_one_process(
    store: Store, suite_folder: Path, undisturbed: Store
):
    killer = Killer(after=5, times=2)
    report = sweep(
        entries(**GRID), store, tiny_sources(suite_folder), killer, lambda: with_killer(store, suite_folder, killer, 2)
    )
    assert set(statuses(report).values()) == {OK}
    assert sum("code -9" in one and "tried again" in one for one in killer.said) == 2
    assert records(store) == records(undisturbed) and tables(store) == tables(undisturbed)


def test_a_sweep_that_is_killed_takes_its_workers_with_it_and_goes_on_where_it_was(
    store: Store, suite_folder: Path, undisturbed: Store
):
    process = sweep_apart(store.path, suite_folder, GRID)
    while process.is_alive() and lines_in(store.log_folder) < 9:
        time.sleep(0.005)
    orphans = workers_of(process)
    process.kill()
    process.join()
    assert orphans
    while any(Path(f"/proc/{one}").exists() for one in orphans):
        time.sleep(0.005)  # each ends after its sample
    before = lines_in(store.log_folder)
    notes = Notes()
    sweep(entries(**GRID), store, tiny_sources(suite_folder), notes)
    assert before >= 9 and notes.steps <= 11
    assert records(store) == records(undisturbed) and tables(store) == tables(undisturbed)
