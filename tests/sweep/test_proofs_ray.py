"""Slow proofs: a sweep by Ray on this machine gives the same records, survives a killed worker, and keeps to itself."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sweeps import Notes, entries, records, statuses, sweep, tables, tiny_sources

from harness.records.figures import OK
from harness.store.database import Store
from harness.sweep.workers import Start

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not installed"),
]
GRID: dict[str, Any] = {"methods": ("random", "divprune"), "budgets": ("50%", "25%"), "limit": 8}
LISTENING = "0A"


def open_sockets() -> set[tuple[str, str]]:
    """(inode, address in hexadecimal) of every listening socket that is not on a loopback address."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            address = fields[1].partition(":")[0]
            if fields[3] == LISTENING and not address.endswith("0100007F") and address != f"{'0' * 24}01000000":
                found.add((fields[9], fields[1]))
    return found


class Killer(Notes):
    """An observer that looks at the sockets at the third sample and kills a worker at the twelfth."""

    def __init__(self) -> None:
        super().__init__()
        self.sockets: set[tuple[str, str]] = set()
        self.killed = 0

    def advanced(self, name: str, steps: int) -> None:
        super().advanced(name, steps)
        if self.steps == 3:
            self.sockets = open_sockets()
        if self.steps >= 12 and not self.killed:
            self.killed = next(one for one in processes() if b"ray::Hand" in command_line(one))
            os.kill(self.killed, signal.SIGKILL)


def processes() -> list[int]:
    return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]


def command_line(process_id: int) -> bytes:
    try:
        return Path(f"/proc/{process_id}/cmdline").read_bytes()
    except OSError:
        return b""


def test_ray_gives_the_same_records_survives_a_kill_and_listens_to_this_machine_only(
    tmp_path: Path, suite_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    from harness.sweep.ray_workers import RayCrew

    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    expected, store = Store(tmp_path / "expected.duckdb"), Store(tmp_path / "store.duckdb")
    sweep(entries(**GRID), expected, tiny_sources(suite_folder))
    before, notes = open_sockets(), Killer()
    report = sweep(
        entries(**GRID), store, tiny_sources(suite_folder), notes,
        lambda: RayCrew(2, Start(store.path, tiny_sources(suite_folder))), shard_samples=4,
    )  # fmt: skip
    assert set(statuses(report).values()) == {OK}
    assert records(store) == records(expected) and tables(store) == tables(expected)
    assert notes.killed and any("its worker was lost" in one and "tried again" in one for one in notes.said)
    assert notes.steps >= 12 and notes.sockets - before == set()
