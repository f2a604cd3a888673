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

from harness.records.figures import OK
from harness.store.database import Store
from harness.sweep.workers import Processes

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


SHARED = {"methods": ("divprune",), "limit": 8}


@pytest.fixture
def whole(tmp_path: Path, suite_folder: Path) -> Store:
    """What one process makes of eight questions a run, unshared."""
    store = Store(tmp_path / "whole.duckdb")
    sweep(entries(**SHARED), store, tiny_sources(suite_folder))
    return store


def shards_in(store: Store) -> list[str]:
    return [path.name for path in store.log_folder.glob("*.shard-*")]


@pytest.mark.parametrize(("workers", "shard_samples"), [(1, 4), (2, 3)])
def test_a_run_is_the_same_however_it_is_shared(
    store: Store, suite_folder: Path, whole: Store, workers: int, shard_samples: int
):
    notes, by = Notes(), (lambda: crew_of(store, suite_folder)) if workers == 2 else None
    report = sweep(entries(**SHARED), store, tiny_sources(suite_folder), notes, by, shard_samples=shard_samples)
    shards = -(-8 // shard_samples)
    assert set(statuses(report).values()) == {OK} and len(notes.begun) == 2 * shards and notes.steps == 16
    assert notes.settled_cells == [("full", OK), ("divprune", OK)]
    assert records(store) == records(whole) and tables(store) == tables(whole) and shards_in(store) == []
    assert not any(cell.ran for cell in sweep(entries(**SHARED), store, tiny_sources(suite_folder)).cells)


def test_a_killed_shard_goes_on_from_its_own_log(store: Store, suite_folder: Path, whole: Store):
    killer = Killer(after=3, times=1)
    report = sweep(
        entries(**SHARED), store, tiny_sources(suite_folder), killer,
        lambda: with_killer(store, suite_folder, killer, 2), shard_samples=4,
    )  # fmt: skip
    assert set(statuses(report).values()) == {OK}
    assert sum("part" in one and "code -9" in one for one in killer.said) == 1
    assert killer.steps <= 17 and any(done > 0 for _, _, done in killer.begun)
    assert records(store) == records(whole) and tables(store) == tables(whole)


@pytest.mark.parametrize("again", [None, 5, 2])
def test_shards_that_were_left_are_found_whatever_the_next_sweep_shares(
    store: Store, suite_folder: Path, whole: Store, again: int | None
):
    sources, stopped = tiny_sources(suite_folder), Notes(interrupt_after=4)
    sweep(entries(**SHARED), store, sources, stopped, shard_samples=3)
    left = sweep(entries(**SHARED), store, sources, dry=True).cells[0].finding.samples_left
    notes = Notes()
    sweep(entries(**SHARED), store, sources, notes, shard_samples=again)
    assert (stopped.steps, left, notes.steps) == (4, 4, 12) and shards_in(store) == []
    assert records(store) == records(whole) and tables(store) == tables(whole)


def test_a_run_alone_takes_in_what_shards_left(store: Store, suite_folder: Path, whole: Store):
    from harness.run.runner import run

    cells, sources = entries(**SHARED), tiny_sources(suite_folder)
    sweep(cells, store, sources, Notes(interrupt_after=6), shard_samples=4)
    run(cells[0].request, store, NoOne(), sources=sources)
    (run_id,) = store.runs()["run_id"]
    assert records(store)[run_id] == records(whole)[run_id] and shards_in(store) == []


class NoOne:
    """A watcher that looks away."""

    def begins(self, title: str, total: int, done: int) -> None: ...
    def advanced(self, steps: int = 1) -> None: ...
    def ends(self) -> None: ...
