from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from harness.budget.spec import BudgetSpec
from harness.latency.protocol import Protocol
from harness.latency.session import in_fresh_process, time_in_fresh_process
from harness.records.errors import HarnessError, Interrupted, UnknownModel
from harness.records.progress import Stop
from harness.records.records import LatencyRow
from harness.request.request import Request

SHORT = Protocol(pairs=2, warmup=1, sessions=2)


def request(model: str = "reference-a") -> Request:
    return Request("random", BudgetSpec.parse("50%"), model=model, limit=2)


def test_a_session_runs_in_another_process_and_hands_its_rows_back():
    rows = [row for row in time_in_fresh_process(request(), SHORT, lambda: False, {}) if isinstance(row, LatencyRow)]
    totals = [row for row in rows if row.stage == "total" and not row.control]
    assert {row.arm for row in totals} == {"base", "pruned"} and all(row.ms > 0 for row in totals)
    (session,) = {row.session for row in rows}
    assert not session.endswith(f"-{os.getpid()}")


def test_a_session_can_be_stopped():
    with pytest.raises(Interrupted, match="everything finished before is kept"):
        time_in_fresh_process(request(), SHORT, lambda: True, {})


def test_what_stops_a_session_in_its_process_is_told_here():
    with pytest.raises(UnknownModel, match="no-such-model"):
        time_in_fresh_process(request("no-such-model"), SHORT, lambda: False, {})


def dies(stop: Stop) -> Iterator[int]:
    yield 1
    os._exit(7)


def test_a_process_that_dies_is_said_to_have_died_and_what_it_gave_before_is_there():
    found = in_fresh_process(dies, lambda: False)
    assert next(found) == 1
    with pytest.raises(HarnessError, match="ended with code 7"):
        next(found)
