"""Which task comes next, by bookkeeping alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from logged_runs import spec

from harness.budget.spec import BudgetSpec
from harness.latency.protocol import Protocol
from harness.records.figures import ERROR, INFEASIBLE, OK
from harness.request.request import Request
from harness.sweep.grid import GridCell
from harness.sweep.schedule import Schedule
from harness.sweep.tasks import (
    BUSY,
    DAMAGED,
    DISK_FULL,
    MISSING,
    STALE,
    STOPPED,
    Finding,
    Job,
    Survey,
    TaskOutcome,
    lost,
)

HALF = BudgetSpec("layer_average", 0.5)
DONE = TaskOutcome(OK)


def request(method: str, model: str = "a") -> Request:
    made = Request(method, HALF, model=model, benchmark="b")
    return made.control("full") if method == "full" else made


def finding(
    method: str, state: str = MISSING, model: str = "a", timing: Protocol | None = None, **more: Any
) -> Finding:
    return Finding(
        GridCell(request(method, model), timing), spec(method=method, model=model), state,
        untimed=timing is not None, **more,
    )  # fmt: skip


def surveyed(*findings: Finding, **how: Any) -> Schedule:
    """A schedule that has already heard what is left."""
    schedule = Schedule([Survey(tuple(one.entry for one in findings), frozenset(), {})], **how)
    named = schedule.next(None, 0)
    assert named is not None and isinstance(named[1], Survey)
    schedule.surveyed(named[0], findings)
    return schedule


def take(schedule: Schedule, now: float = 0.0, held: Any = None) -> tuple[str, str]:
    """The name of the next job, and its method with what is done for it."""
    named = schedule.next(held, now)
    if named is None:
        return "", "nothing"
    name, task = named
    assert isinstance(task, Job)
    part = f", {task.shard}" if task.shard else ""
    return name, f"{'time ' if task.timing else ''}{task.request.method}{part}"


def do_all(schedule: Schedule) -> list[str]:
    done = []
    while not schedule.finished:
        name, what = take(schedule)
        done.append(what)
        schedule.done(name, DONE, 0)
    return done


def status(schedule: Schedule, method: str) -> tuple[str, str]:
    return next((one.status, one.message) for one in schedule.cells.values() if one.request.method == method)


def test_no_pruning_is_done_before_what_is_told_against_it():
    schedule = surveyed(finding("fastv"), finding("full"))
    name, first = take(schedule)
    assert (first, take(schedule)[1]) == ("full", "nothing")
    schedule.done(name, DONE, 0)
    assert take(schedule)[1] == "fastv"


def test_timing_waits_for_all_answers_and_has_the_machine_for_itself():
    short = Protocol(pairs=2)
    schedule = surveyed(finding("full", OK), finding("fastv", timing=short), finding("grid", timing=short))
    first, second = take(schedule), take(schedule)
    assert (first[1], second[1], take(schedule)[1]) == ("fastv", "grid", "nothing")
    schedule.done(first[0], DONE, 0)
    assert take(schedule)[1] == "nothing"  # grid is still being answered
    schedule.done(second[0], DONE, 0)
    timed = take(schedule)
    assert (timed[1], take(schedule)[1]) == ("time fastv", "nothing")
    schedule.done(timed[0], DONE, 0)
    assert do_all(schedule) == ["time grid"]


def test_a_worker_goes_on_with_the_model_that_it_has_open():
    findings = [finding(m, OK if m == "full" else MISSING, model) for model in "ab" for m in ("full", "fastv", "grid")]
    schedule = surveyed(*findings)
    held = ("b", "float32", "cpu", "sdpa", "pil")
    taken = [schedule.next(held, 0) for _ in range(3)]
    assert [task.request.model for _, task in taken if isinstance(task, Job)] == ["b", "b", "a"]


def test_what_is_done_is_left_alone():
    schedule = surveyed(finding("full", OK), finding("fastv", OK), finding("grid", INFEASIBLE, stored=True))
    assert schedule.finished


def test_an_infeasible_cell_that_no_log_knows_is_written_down():
    assert do_all(surveyed(finding("full", OK), finding("grid", INFEASIBLE))) == ["grid"]


def test_stale_cells_wait_for_a_request_but_their_unpruned_run_comes_with_what_needs_it():
    cells = (finding("full", STALE), finding("fastv", STALE))
    assert surveyed(*cells).finished
    assert do_all(surveyed(*cells, redo_stale=True)) == ["full", "fastv"]
    assert do_all(surveyed(*cells, finding("grid"))) == ["full", "grid"]


def test_a_dry_sweep_has_no_jobs():
    schedule = surveyed(finding("full"), finding("fastv"), dry=True)
    assert schedule.finished and status(schedule, "fastv") == (MISSING, "")


def test_a_failure_is_tried_twice_more_and_then_stands():
    schedule = surveyed(finding("full", OK), finding("fastv"))
    settled = [schedule.done(take(schedule)[0], lost("its worker died"), 0) for _ in range(3)]
    assert settled[:2] == [None, None] and settled[2] is not None
    assert schedule.finished and status(schedule, "fastv") == (ERROR, "its worker died")


def test_what_no_repetition_mends_is_not_repeated():
    schedule = surveyed(finding("full", OK), finding("fastv", timing=Protocol(pairs=2)))
    schedule.done(take(schedule)[0], TaskOutcome(INFEASIBLE, "needs more", 4.0), 0)
    assert schedule.finished and status(schedule, "fastv") == (INFEASIBLE, "needs more")


def test_a_failed_survey_is_tried_twice_more_and_then_its_cells_have_failed():
    schedule = Schedule([Survey((GridCell(request("full")), GridCell(request("fastv"))), frozenset(), {})])
    for _ in range(3):
        named = schedule.next(None, 0)
        assert named is not None
        schedule.failed(named[0], lost("its worker died"))
    assert schedule.finished and [one.status for one in schedule.cells.values()] == [ERROR, ERROR]


def test_a_cell_that_another_process_works_on_rests_and_is_no_failure():
    schedule = surveyed(finding("full", OK), finding("fastv"))
    for now in range(0, 50, 10):
        name, what = take(schedule, now)
        assert what == "fastv"
        schedule.done(name, TaskOutcome(BUSY), now + 10)
        assert take(schedule, now + 9)[1] == "nothing" and not schedule.finished


@pytest.mark.parametrize("state", [ERROR, DAMAGED, INFEASIBLE])
def test_without_its_unpruned_run_a_cell_has_failed(state: str):
    schedule = surveyed(replace(finding("full", state), message="torn", stored=True), finding("fastv"))
    assert schedule.finished
    assert status(schedule, "fastv") == (ERROR, f"its unpruned run is {state}: torn")


@pytest.mark.parametrize("outcome", [TaskOutcome(STOPPED), TaskOutcome(DISK_FULL, "no space left")])
def test_a_stop_gives_nothing_more_out_and_waits_for_what_runs(outcome: TaskOutcome):
    schedule = surveyed(finding("full", OK), finding("fastv"), finding("grid"), finding("pool"))
    first, second = take(schedule), take(schedule)
    schedule.done(first[0], outcome, 0)
    assert take(schedule)[1] == "nothing" and not schedule.finished
    schedule.done(second[0], DONE, 0)
    assert schedule.finished and schedule.stopped == outcome
    assert [status(schedule, one)[0] for one in ("fastv", "grid", "pool")] == [MISSING, OK, MISSING]


def test_time_left_shrinks_with_the_samples_and_counts_what_is_missing_only():
    schedule = surveyed(
        finding("full", OK), finding("fastv", estimate_s=8.0, pace_s=1.0), finding("grid", INFEASIBLE, estimate_s=99)
    )
    assert schedule.left_s == 8
    name, _ = take(schedule)  # storing grid's verdict comes later
    schedule.advanced(name, 3)
    assert (schedule.left_s, schedule.used_s) == (5, 3)
    schedule.done(name, DONE, 0)
    assert schedule.left_s == 0


def test_a_cell_is_put_together_after_its_shards_and_timed_whole():
    grid = finding("grid", timing=Protocol(pairs=1), samples_left=5)
    schedule = surveyed(finding("full", samples_left=2), grid, shard_samples=2)
    assert do_all(schedule) == [
        "full", "grid, part 1 of 3", "grid, part 2 of 3", "grid, part 3 of 3", "grid", "time grid",
    ]  # fmt: skip


def test_shards_run_side_by_side_and_what_puts_them_together_waits():
    schedule = surveyed(finding("full", samples_left=4), shard_samples=2)
    first, second = take(schedule), take(schedule)
    assert (first[1], second[1]) == ("full, part 1 of 2", "full, part 2 of 2") and take(schedule)[1] == "nothing"
    assert schedule.done(first[0], DONE, 0) is None and take(schedule)[1] == "nothing"
    assert schedule.done(second[0], DONE, 0) is None and take(schedule)[1] == "full"


def test_a_shard_that_fails_for_good_settles_its_cell_once():
    schedule = surveyed(finding("full", samples_left=4), shard_samples=2)
    first, second = take(schedule), take(schedule)
    cell = schedule.done(first[0], TaskOutcome(ERROR, "no"), 0)
    assert cell is not None and cell.status == ERROR and take(schedule)[1] == "nothing"
    assert schedule.done(second[0], TaskOutcome(ERROR, "no, too", again=True), 0) is None and schedule.finished
