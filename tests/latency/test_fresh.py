from __future__ import annotations

import os

import pytest

from harness.budget.spec import BudgetSpec
from harness.latency.protocol import Protocol
from harness.latency.session import time_in_fresh_process
from harness.records.errors import HarnessError, Interrupted
from harness.records.records import LatencyRow
from harness.request.request import Request

SHORT = Protocol(pairs=2, warmup=1, sessions=2)


def request(model: str = "reference-a") -> Request:
    return Request("random", BudgetSpec.parse("50%"), model=model, limit=2)


def test_a_session_runs_in_another_process_and_hands_its_rows_back():
    rows = [row for row in time_in_fresh_process(request(), SHORT, lambda: False) if isinstance(row, LatencyRow)]
    totals = [row for row in rows if row.stage == "total" and not row.control]
    assert {row.arm for row in totals} == {"base", "pruned"} and all(row.ms > 0 for row in totals)
    (session,) = {row.session for row in rows}
    assert not session.endswith(f"-{os.getpid()}")


def test_a_session_can_be_stopped():
    with pytest.raises(Interrupted, match="every answer is kept"):
        time_in_fresh_process(request(), SHORT, lambda: True)


def test_a_session_that_dies_is_said_to_have_died():
    with pytest.raises(HarnessError, match="ended with code 1"):
        time_in_fresh_process(request("no-such-model"), SHORT, lambda: False)
