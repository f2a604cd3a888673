"""Loops without pauses, on a clock that the work itself moves."""

from __future__ import annotations

import pytest

from harness.latency.resources import joules_per_prefill, prefills_per_s


class Work:
    """Each run takes 0.25 s and 10 J."""

    def __init__(self) -> None:
        self.runs = self.waits = 0

    def __call__(self) -> None:
        self.runs += 1

    def wait(self) -> None:
        self.waits += 1

    def now_s(self) -> float:
        return 0.25 * self.runs

    def millijoules(self) -> int:
        return 7_000 + 10_000 * self.runs


def test_a_rate_is_repetitions_over_time_and_batches_that_cannot_run_are_none():
    work = Work()
    assert prefills_per_s(work, work.wait, work.now_s) == {1: pytest.approx(4), 8: None, 32: None}
    assert (work.runs, work.waits) == (3, 2)  # one block of 3 passes half a second


def test_energy_is_what_the_counter_gained_over_five_seconds_for_each_repetition():
    work = Work()
    assert joules_per_prefill(work, work.wait, work.millijoules, work.now_s) == pytest.approx(10)
    assert work.runs * 0.25 >= 5


def test_a_device_that_does_not_say_its_energy_is_not_run_for_it():
    work = Work()
    assert joules_per_prefill(work, work.wait, lambda: None, work.now_s) is None
    assert work.runs == 0
