"""Timing sessions as the runner keeps them: each a fresh process, none lost to an interruption, none measured twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.benchmarks.embedded import open_suite
from harness.budget.spec import BudgetSpec
from harness.latency.protocol import Protocol
from harness.models.loading import OpenModel
from harness.records.errors import Interrupted
from harness.records.records import LatencyRow
from harness.request.opening import Sources
from harness.request.request import Request
from harness.run import runner
from harness.store.database import Store

FIVE = Protocol(pairs=2, warmup=1, sessions=5)


class Unwatched:
    def begins(self, title: str, total: int, done: int) -> None: ...

    def advanced(self, steps: int = 1) -> None: ...

    def ends(self) -> None: ...


class Processes:
    """Stands in for fresh processes: each gives two pairs, and the one of number `fails` is interrupted."""

    def __init__(self, fails: int | None = None):
        self.begun = 0
        self.fails = fails

    def __call__(self, request: Request, protocol: Protocol, stop: Any, foreign: Any) -> list[LatencyRow]:
        self.begun += 1
        if self.begun == self.fails:
            raise Interrupted("stopped while timing; every answer is kept")
        session = f"{id(self)}-{self.begun}"
        arms = (("base", 10.0), ("pruned", 10.0 - self.begun))
        return [
            LatencyRow(session, "3x4+10", pair, arm, order, False, "total", ms, "device_event")
            for pair in range(2)
            for order, (arm, ms) in enumerate(arms)
        ]


@pytest.fixture
def timed(reference_a: OpenModel, suite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    store = Store(tmp_path / "store.duckdb")
    sources = Sources(
        lambda name, **settings: reference_a, lambda name, **others: open_suite(name, suite_folder, quick=False)
    )

    def run(processes: Processes) -> tuple[Any, Store]:
        monkeypatch.setattr(runner, "time_in_fresh_process", processes)
        request = Request("grid", BudgetSpec.parse("50%"), benchmark="reference", limit=1)
        comparison = runner.run(request, store, Unwatched(), timing=FIVE, sources=sources)
        return comparison.run.figures, store

    return run


def test_five_sessions_are_five_processes_and_their_interval_is_over_sessions(timed: Callable):
    processes = Processes()
    figures, store = timed(processes)
    assert processes.begun == 5
    assert (figures.latency_sessions, figures.latency_pairs, figures.latency_interval) == (5, 10, "sessions")
    assert figures.indicative_because == "2 of 30 pairs in a shape"
    keys = store.query("SELECT DISTINCT run_id, machine_id, session FROM latencies")
    assert len(keys) == 5 and keys["run_id"].nunique() == keys["machine_id"].nunique() == 1


def test_an_interrupted_measurement_goes_on_with_the_sessions_that_are_missing(timed: Callable):
    with pytest.raises(Interrupted):
        timed(Processes(fails=4))
    rest = Processes()
    figures, _ = timed(rest)
    assert rest.begun == 2 and figures.latency_sessions == 5
    again = Processes()
    assert timed(again)[0] == figures and again.begun == 0
