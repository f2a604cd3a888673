"""Slow proofs: a sweep survives whatever happens to its processes, its logs and its disk."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sweeps import Notes, entries, lines_in, records, statuses, sweep, sweep_apart, tables, tiny_sources, workers_of

from harness.records.figures import OK
from harness.store.database import Store
from harness.sweep.tasks import DAMAGED

pytestmark = pytest.mark.proof
GRID: dict[str, Any] = {
    "methods": ("random", "grid", "divprune", "fastv"), "budgets": ("75%", "50%", "25%"), "seeds": 3, "limit": 8,
}  # fmt: skip
CELLS = 1 + 3 * (3 + 3)
KILLS = 50


def opened(folder: Path) -> Store:
    return Store(folder / "store.duckdb", tell=lambda message: None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return opened(tmp_path_factory.mktemp("undisturbed"))


def fill(store: Store, suite: Path) -> Store:
    """The whole grid, by one process that nobody disturbs; done once."""
    report = sweep(entries(**GRID), store, tiny_sources(suite))
    assert set(statuses(report).values()) == {OK} and len(report.cells) == CELLS
    return store


def read_as_a_board_does(store: Store) -> None:
    """Every finished run that can be seen has all its samples."""
    counts = store.query(
        "SELECT runs.n, count(samples.sample_id) AS rows FROM runs LEFT JOIN samples USING (run_id) "
        "WHERE status = 'ok' GROUP BY runs.run_id, runs.n"
    )
    assert (counts["n"] == counts["rows"]).all() and (counts["n"] == GRID["limit"]).all()


def wait_for(progress: Callable[[], bool], store: Store) -> None:
    """Until there is progress; a board reads all the while."""
    while not progress():
        read_as_a_board_does(store)
        time.sleep(0.01)


def test_fifty_kills_across_a_sweep_leave_the_tables_of_an_undisturbed_one(
    tmp_path: Path, suite_folder: Path, undisturbed: Store
):
    chance, kills, rounds = random.Random(0), {"sweep": 0, "worker": 0}, 0
    expected = fill(undisturbed, suite_folder)
    while sum(kills.values()) < KILLS:
        store = opened(tmp_path / f"round-{rounds}")
        store.log_folder.mkdir(parents=True)
        rounds += 1
        process = sweep_apart(store.path, suite_folder, GRID)
        while sum(kills.values()) < KILLS:
            goal = lines_in(store.log_folder) + chance.randint(0, 12)
            wait_for(lambda: not process.is_alive() or lines_in(store.log_folder) >= goal, store)  # noqa: B023
            if not process.is_alive():
                break
            workers = workers_of(process)
            if workers and chance.random() < 0.7:
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(workers), signal.SIGKILL)
                    kills["worker"] += 1
            elif workers:
                process.kill()
                process.join()
                kills["sweep"] += 1
                process = sweep_apart(store.path, suite_folder, GRID)
        process.kill()
        process.join()
        sweep(entries(**GRID), store, tiny_sources(suite_folder))  # what was given up after three kills is done too
        read_as_a_board_does(store)
        assert records(store) == records(expected) and tables(store) == tables(expected)
        store.rebuild()
        assert tables(store) == tables(expected)
    print(f"{kills} kills in {rounds} rounds")
    assert min(kills.values()) >= 5


def test_twenty_damaged_logs_are_all_found_and_told(tmp_path: Path, suite_folder: Path, undisturbed: Store):
    source, chance = fill(undisturbed, suite_folder), random.Random(1)
    told: list[str] = []
    store = Store(tmp_path / "store.duckdb", tell=told.append)
    for damage in ("torn", "flipped"):
        shutil.rmtree(store.log_folder, ignore_errors=True)
        shutil.copytree(source.log_folder, store.log_folder)
        logs = chance.sample(sorted(store.log_folder.glob("*.jsonl")), 10)
        for log in logs:
            raw = bytearray(log.read_bytes())
            if damage == "torn":
                del raw[chance.randrange(len(raw) // 2, len(raw) - 1) :]
            else:
                raw[chance.randrange(len(raw) // 2)] ^= 1 << chance.randrange(8)
            log.write_bytes(raw)
        store.rebuild()
        notes = Notes()
        report = sweep(entries(**GRID), store, tiny_sources(suite_folder), notes)
        for log in logs:
            assert any(str(log) in one for one in notes.said), f"{damage} {log}"
        assert set(statuses(report).values()) <= ({OK} if damage == "torn" else {OK, DAMAGED, "error"})
        if damage == "torn":
            assert records(store) == records(source) and tables(store) == tables(source)
        else:
            assert all(any(str(log) in one for one in told) for log in logs)


FILLING = """
import sys; sys.path[:0] = [{tests!r}]
from pathlib import Path
from sweeps import entries, statuses, sweep, tiny_sources
from harness.store.database import Store
report = sweep(entries(**{grid!r}), Store(Path({store!r})), tiny_sources(Path({suite!r})))
print("full" if report.disk_full else set(statuses(report).values()))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="a small disk needs unshare")
def test_a_full_disk_stops_a_sweep_which_goes_on_once_there_is_room(
    tmp_path: Path, suite_folder: Path, undisturbed: Store
):
    expected = fill(undisturbed, suite_folder)
    disk = tmp_path / "disk"
    disk.mkdir()
    needed = sum(path.stat().st_size for path in expected.path.parent.rglob("*") if path.is_file())
    code = tmp_path / "fill.py"
    code.write_text(
        FILLING.format(
            tests=str(Path(__file__).parents[1]), grid=GRID, store=str(disk / "store.duckdb"), suite=str(suite_folder)
        )
    )
    script = (
        f"mount -t tmpfs -o size={needed * 6 // 10} tmpfs {disk} && {{ {sys.executable} {code}; "
        f"mount -o remount,size=64m {disk}; {sys.executable} {code}; cp -r {disk} {tmp_path}/kept; }}"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "mount" in done.stderr and not done.stdout:
        pytest.skip("no user namespace may mount a tmpfs here")
    assert done.stdout.splitlines() == ["full", "{'ok'}"], done.stdout + done.stderr
    store = opened(tmp_path / "kept")
    assert records(store) == records(expected) and tables(store) == tables(expected)


def test_two_sweeps_on_one_folder_share_the_work(tmp_path: Path, suite_folder: Path, undisturbed: Store):
    expected, store = fill(undisturbed, suite_folder), opened(tmp_path)
    other = sweep_apart(store.path, suite_folder, GRID)
    wait_for(lambda: lines_in(store.log_folder) > 3, store)
    report = sweep(entries(**GRID), store, tiny_sources(suite_folder))
    other.join()
    assert other.exitcode == 0 and set(statuses(report).values()) == {OK}
    assert records(store) == records(expected) and tables(store) == tables(expected)
    assert sum(len(one) for one in records(store).values()) == CELLS * GRID["limit"]
