"""Paired latency: measured with time that the arms themselves move, and summarised from rows written by hand."""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from random import Random

import pytest

from harness.latency import protocol as latency
from harness.latency.clock import PerfCounterBackend, StageClock
from harness.latency.machine import DeviceState
from harness.latency.pairs import half_width_of_medians, median_standard_error, quantile
from harness.latency.protocol import (
    DeviceRow,
    LatencySummary,
    Protocol,
    WarmUp,
    is_settled,
    measure_pairs,
    pair_orders,
    preprocess_rows,
    summarise,
)
from harness.records.records import LatencyRow


class Hand:
    """Nanoseconds that only the arms move."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns

    def pass_ms(self, ms: float) -> None:
        self.ns += round(ms * 1e6)

    def clock(self, kind: str = "perf_counter_ns") -> StageClock:
        backend = PerfCounterBackend(self)
        backend.kind = kind
        return StageClock(backend, wall_now_ns=self)


def arm(hand: Hand, noise: Callable[[], float] = lambda: 1.0, unstaged_ms: float = 0, **stages_ms: float):
    """A run that takes the given time in each stage, all of it scaled by one draw of noise."""

    def run(clock: StageClock) -> None:
        scale = noise()
        for stage, ms in stages_ms.items():
            with clock.stage(stage):
                hand.pass_ms(ms * scale)
        hand.pass_ms(unstaged_ms * scale)

    return run


def noise_of(seed: int, spread: float = 0.02) -> Callable[[], float]:
    random = Random(seed)
    return lambda: math.exp(random.gauss(0, spread))


def totals(session: str, shape: str, pairs: list[tuple[float, float]], controls=(), clock="device_event"):
    """Rows of the totals in ms of (base, pruned) pairs, then of (first, second) controls."""
    rows = []
    for number, (base, pruned) in enumerate(pairs):
        rows.append(LatencyRow(session, shape, number, "base", 0, False, "total", base, clock))
        rows.append(LatencyRow(session, shape, number, "pruned", 1, False, "total", pruned, clock))
    for number, both in enumerate(controls, start=len(pairs)):
        for order, ms in enumerate(both):
            rows.append(LatencyRow(session, shape, number, "base", order, True, "total", ms, clock))
    return rows


# --- measuring


def test_a_planted_slowdown_of_10_percent_is_found():
    hand = Hand()
    noise = noise_of(1)
    arms = {"a": (arm(hand, noise, vit=30, llm_prefill=70), arm(hand, noise, vit=30, select=10, llm_prefill=70))}
    summary = summarise(measure_pairs(arms, Protocol(pairs=30), hand.clock(), "1"))
    assert summary.lr == pytest.approx(-0.10, abs=0.02)
    assert summary.low < -0.10 < summary.high < 0  # negative and not clipped
    assert summary.verdict == "slower than no pruning"
    assert summary.pruned_ms["select"] == pytest.approx(10, rel=0.02)
    assert summary.base_ms["select"] == 0


def test_a_no_op_contains_zero_and_its_controls_contain_one():
    hand = Hand()
    noise = noise_of(2)
    same = arm(hand, noise, vit=30, llm_prefill=70)
    summary = summarise(measure_pairs({"a": (same, same)}, Protocol(pairs=40), hand.clock(), "1"))
    assert summary.low < 0 < summary.high
    assert summary.verdict == "no difference shown"
    assert summary.aa_low < 1 < summary.aa_high
    assert summary.aa_flagged is False


def test_a_pruner_that_hides_its_work_shows_up_in_the_residual():
    hand = Hand()
    arms = {"a": (arm(hand, vit=50), arm(hand, vit=40, unstaged_ms=10))}
    summary = summarise(measure_pairs(arms, Protocol(pairs=5), hand.clock(), "1"))
    assert summary.pruned_ms["residual"] == 10
    assert summary.pruned_residual_ratio == pytest.approx(0.2)
    assert summary.base_residual_ratio == 0
    assert summary.residual_fault


def test_work_within_another_stage_counts_once():
    hand = Hand()

    def nested(clock: StageClock) -> None:
        with clock.stage("llm_prefill"):
            hand.pass_ms(8)
            with clock.stage("select"):
                hand.pass_ms(2)
            hand.pass_ms(8)

    summary = summarise(measure_pairs({"a": (nested, nested)}, Protocol(pairs=5), hand.clock(), "1"))
    assert summary.base_ms == {"llm_prefill": 16, "select": 2, "residual": 0, "total": 18}


def test_both_orders_occur_equally_often_and_every_tenth_pair_is_a_control():
    drawn = list(islice(pair_orders(Random("any")), 50))
    assert [number for number, (control, _) in enumerate(drawn) if control] == [4, 14, 24, 34, 44]
    firsts = [pruned_first for control, pruned_first in drawn if not control]
    assert all(firsts[i] != firsts[i + 1] for i in range(0, 44, 2))
    assert {tuple(firsts[i : i + 2]) for i in range(0, 44, 2)} == {(True, False), (False, True)}


def test_the_rows_say_in_which_order_the_arms_really_ran():
    hand, ran = Hand(), []

    def logged(name: str, ms: float):
        def run(clock: StageClock) -> None:
            ran.append(name)
            hand.pass_ms(ms)

        return run

    arms = {"a": (logged("base", 4), logged("pruned", 3))}
    rows = measure_pairs(arms, Protocol(pairs=6, warmup=0), hand.clock(), "1")
    stored = [row.arm for row in sorted(rows, key=lambda r: (r.pair, r.order)) if row.stage == "total"]
    assert stored == ran
    assert {(row.arm, row.order) for row in rows if not row.control} == {
        ("base", 0),
        ("base", 1),
        ("pruned", 0),
        ("pruned", 1),
    }
    assert {row.arm for row in rows if row.control} == {"base"}
    assert {row.ms for row in rows if row.stage == "total" and row.arm == "pruned"} == {3}


def test_the_seed_decides_the_order_and_sessions_differ():
    def order(seed: int, session: str) -> list[tuple[int, str, int]]:
        hand = Hand()
        same = arm(hand, vit=1)
        rows = measure_pairs({"a": (same, same)}, Protocol(pairs=20, warmup=0, seed=seed), hand.clock(), session)
        return [(row.pair, row.arm, row.order) for row in rows if row.stage == "total"]

    assert order(0, "1") == order(0, "1")
    assert order(0, "1") != order(1, "1")
    assert order(0, "1") != order(0, "2")


def test_as_many_pairs_as_fit_in_the_time_and_at_least_five():
    def measure(seconds: float) -> tuple[LatencySummary, float]:
        hand = Hand()
        same = arm(hand, vit=100)
        arms = {"a": (same, same), "b": (same, same)}
        return summarise(measure_pairs(arms, Protocol(seconds=seconds), hand.clock(), "1")), hand.ns / 1e9

    summary, took_s = measure(20)
    assert 19.5 < took_s < 21
    assert summary.pairs > 60
    summary, _ = measure(0)
    assert summary.pairs == 2 * 5
    assert summary.indicative


def test_the_time_is_shared_by_sessions_and_a_fast_shape_leaves_its_rest_to_the_next():
    hand = Hand()
    fast, slow = arm(hand, vit=1), arm(hand, vit=100)
    measure_pairs({"a": (fast, fast), "b": (slow, slow)}, Protocol(pairs=30, seconds=60), hand.clock(), "1")
    assert hand.ns / 1e9 < 10  # 30 pairs are enough, whatever the time
    hand = Hand()
    slow = arm(hand, vit=100)
    measure_pairs({"a": (slow, slow)}, Protocol(seconds=40, sessions=4), hand.clock(), "1")
    assert 10 <= hand.ns / 1e9 < 10.5


def test_warm_up_lasts_until_it_is_settled():
    hand, seen = Hand(), []
    speeds = iter([300, 250, 200, 150, 120])

    def warming(clock: StageClock) -> None:
        hand.pass_ms(next(speeds, 100))

    rows = measure_pairs({"a": (warming, arm(hand, vit=50))}, Protocol(pairs=1), hand.clock(), "1", seen.append)
    base, pruned = seen
    assert base.total_ms == (300, 250, 200, 150, 120, *(100,) * 8)  # the 5 before: 150 120 100 100 100
    assert (base.arm, base.settled) == ("base", True)
    assert pruned.total_ms == (50,) * 10
    assert {row.ms for row in rows if row.stage == "total" and row.arm == "base"} == {100}


def test_warm_up_gives_up_at_50_and_says_so():
    hand, seen = Hand(), []
    slower = iter(range(1, 1000))

    def drifting(clock: StageClock) -> None:
        hand.pass_ms(next(slower))

    measure_pairs({"a": (drifting, drifting)}, Protocol(pairs=1), hand.clock(), "1", seen.append)
    assert [len(row.total_ms) for row in seen] == [50, 50]
    assert seen[0].settled is False


def test_warm_up_takes_at_most_an_eighth_of_a_shapes_time_but_five_iterations():
    def warm_ups(seconds: float) -> list[int]:
        hand, seen = Hand(), []
        slower = iter(range(100, 1000))

        def drifting(clock: StageClock) -> None:
            hand.pass_ms(next(slower))

        measure_pairs({"a": (drifting, drifting)}, Protocol(pairs=1, seconds=seconds), hand.clock(), "1", seen.append)
        return [len(row.total_ms) for row in seen]

    assert warm_ups(1) == [5, 5]
    assert warm_ups(8) == [10, 9]  # 100 + ... + 109 ms pass 1 s; then 110 + ... + 118 ms


def test_a_given_number_of_warm_ups_is_kept():
    hand, seen = Hand(), []
    same = arm(hand, vit=10)
    measure_pairs({"a": (same, same)}, Protocol(pairs=1, warmup=3), hand.clock(), "1", seen.append)
    assert [len(row.total_ms) for row in seen if isinstance(row, WarmUp)] == [3, 3]


def test_settled_means_within_2_percent():
    assert not is_settled([100] * 9)
    assert is_settled([100] * 5 + [102] * 5)
    assert not is_settled([100] * 5 + [103] * 5)
    assert is_settled([999] * 5 + [100] * 10)


def test_the_devices_state_is_told_around_each_repetition(monkeypatch: pytest.MonkeyPatch):
    state = DeviceState(1410, 2619, 41, 123.4, None)

    @contextmanager
    def reader():
        yield lambda: state

    monkeypatch.setattr(latency, "device_reader", reader)
    hand, seen = Hand(), []
    same = arm(hand, vit=10)
    measure_pairs({"a": (same, same)}, Protocol(pairs=2, warmup=0), hand.clock(), "s", seen.append)
    rows = [row for row in seen if isinstance(row, DeviceRow)]
    assert len(rows) == 2 * 2 * 2
    assert [row.moment for row in rows[:2]] == ["before", "after"]
    resources = {row.name: row.value for row in rows[0].resources()}
    assert resources["sm_clock_mhz/a/0/0/before"] == 1410
    assert resources["power_w/a/0/0/before"] == 123.4
    assert not any(name.startswith("throttle_bits") for name in resources)  # the card did not say


def test_garbage_is_not_collected_inside_a_repetition_and_is_again_after_it():
    hand, inside = Hand(), []

    def run(clock: StageClock) -> None:
        inside.append(gc.isenabled())
        hand.pass_ms(1)
        if len(inside) == 5:
            raise KeyboardInterrupt

    assert gc.isenabled()
    with pytest.raises(KeyboardInterrupt):
        measure_pairs({"a": (run, run)}, Protocol(pairs=1), hand.clock(), "1")
    assert not any(inside)
    assert gc.isenabled()


def test_a_protocol_without_bounds_is_refused():
    with pytest.raises(ValueError, match="--pairs or --minutes"):
        Protocol()
    with pytest.raises(ValueError, match="sessions must be at least 1"):
        Protocol(pairs=5, sessions=0)


def test_the_default_is_publishable_only_on_an_accelerator():
    assert Protocol.default(on_accelerator=True, seconds=9) == Protocol(pairs=30, sessions=5)
    assert Protocol.default(on_accelerator=False, seconds=9) == Protocol(seconds=9)


# --- summarising


def test_one_session_by_hand():
    logs = [-0.5, -0.3, -0.4, -0.2, -0.1]
    summary = summarise(totals("1", "a", [(100, 100 * math.exp(x)) for x in logs]))
    assert summary.lr == pytest.approx(1 - math.exp(-0.3))
    # 5 values: c = round(3 - .98 sqrt 5) = 1, the extremes bound the median with 1 - 2/32 = 15/16 (1.8627 sd)
    error = (0.5 - 0.1) / (2 * 1.8627)
    half = 2.7764 * error  # Student, 4 degrees of freedom
    assert summary.low == pytest.approx(1 - math.exp(-0.3 + half), rel=1e-3)
    assert summary.high == pytest.approx(1 - math.exp(-0.3 - half), rel=1e-3)
    assert (summary.interval, summary.sessions, summary.pairs, summary.indicative) == ("within-session", 1, 5, True)
    assert summary.base_ms["total"] == 100
    assert summary.pruned_ms["total"] == pytest.approx(100 * math.exp(-0.3))


def test_sessions_by_hand():
    """Medians per session -0.2, -0.3, -0.4: mean -0.3, sd 0.1, Student with 2 degrees of freedom 4.3027."""
    rows = []
    for name, middle in (("1", -0.2), ("2", -0.3), ("3", -0.4)):
        logs = (middle - 0.01, middle, middle + 0.5)
        rows += totals(name, "a", [(50, 50 * math.exp(x)) for x in logs])
    summary = summarise(rows)
    half = 4.3027 * 0.1 / math.sqrt(3)
    assert summary.lr == pytest.approx(1 - math.exp(-0.3))
    assert summary.low == pytest.approx(1 - math.exp(-0.3 + half), rel=1e-4)
    assert summary.high == pytest.approx(1 - math.exp(-0.3 - half), rel=1e-4)
    assert (summary.interval, summary.sessions, summary.pairs) == ("sessions", 3, 9)


def test_the_errors_of_two_shapes_add_up_by_hand():
    """Equal errors e: sqrt(2) e / 2, with Welch's 2 x 4 degrees of freedom, Student 2.3060."""
    logs = [-0.5, -0.3, -0.4, -0.2, -0.1]
    error = median_standard_error(logs)
    assert error == pytest.approx(0.4 / (2 * 1.8627), rel=1e-4)
    assert half_width_of_medians([logs, logs]) == pytest.approx(2.3060 * math.sqrt(2) * error / 2, rel=1e-4)


def test_shapes_weigh_the_same_however_many_pairs_they_have():
    rows = totals("1", "small", [(10, 5)] * 40) + totals("1", "large", [(1000, 2000)] * 6)
    summary = summarise(rows)
    assert summary.lr == pytest.approx(0)  # half and double: the geometric mean is 1
    assert summary.base_ms["total"] == (10 + 1000) / 2
    assert summary.shapes == 2


def test_only_thirty_pairs_in_five_sessions_on_an_accelerator_can_be_published():
    def summary(sessions: int, pairs: int, clock: str = "device_event") -> LatencySummary:
        return summarise([row for s in range(sessions) for row in totals(str(s), "a", [(10, 9)] * pairs, clock=clock)])

    assert not summary(5, 30).indicative
    assert summary(4, 30).indicative
    assert summary(5, 29).indicative
    assert summary(5, 30, "perf_counter_ns").indicative


def test_controls_by_hand():
    """Second / first: logs 0.1, 0.2, 0.3; mean 0.2, sd 0.1, Student with 2 degrees of freedom 4.3027."""
    controls = [(10, 10 * math.exp(x)) for x in (0.1, 0.2, 0.3)]
    summary = summarise(totals("1", "a", [(10, 9)] * 5, controls))
    half = 4.3027 * 0.1 / math.sqrt(3)
    assert summary.aa_ratio == pytest.approx(math.exp(0.2))
    assert summary.aa_low == pytest.approx(math.exp(0.2 - half), rel=1e-4)
    assert summary.aa_high == pytest.approx(math.exp(0.2 + half), rel=1e-4)
    assert summary.aa_flagged is False
    assert summarise(totals("1", "a", [(10, 9)] * 5, [(10, 11), (10, 11.1), (10, 11.2)])).aa_flagged is True
    assert summary.pairs == 5 and summary.base_ms["total"] == 10  # controls take no part in the rest


def test_too_few_controls_or_pairs_give_no_interval_rather_than_a_guess():
    summary = summarise(totals("1", "a", [(10, 9)], [(10, 11)]))
    assert (summary.low, summary.high, summary.aa_low, summary.aa_flagged) == (None, None, None, None)
    assert summary.aa_ratio == pytest.approx(1.1)
    assert summary.verdict == "no difference shown"
    assert summarise(totals("1", "a", [(10, 9)])).aa_ratio is None


def test_median_and_90th_percentile_by_hand():
    summary = summarise(totals("1", "a", [(ms, ms) for ms in range(1, 12)]))
    assert (summary.base_ms["total"], summary.base_p90_ms) == (6, 10)
    assert quantile([4.0], 0.9) == 4
    assert quantile([0.0, 10.0], 0.25) == 2.5


def test_the_host_is_named_as_the_limit_when_it_is():
    def with_wall(ms: float) -> list[LatencyRow]:
        rows = totals("1", "a", [(10, 10)] * 5)
        return rows + [replace(row, stage="wall", ms=ms, clock="perf_counter_ns") for row in rows]

    assert summarise(with_wall(10.4)).host_bound is False
    assert summarise(with_wall(10.6)).host_bound is True
    assert summarise(totals("1", "a", [(10, 10)] * 5)).host_bound is None


def test_preprocessing_stands_beside_both_arms_and_outside_the_total():
    hand = Hand()
    times = iter([9, 1, 2, 3, 2])
    rows = preprocess_rows({"a": lambda: hand.pass_ms(next(times))}, "1", now_ns=hand)
    summary = summarise(totals("1", "a", [(10, 8)] * 5) + rows)
    assert summary.base_ms["preprocess"] == summary.pruned_ms["preprocess"] == 2
    assert (summary.base_ms["total"], summary.base_ms["residual"]) == (10, 10)


def test_rows_as_stored_give_the_same_summary_in_any_order():
    hand = Hand()
    noise = noise_of(3)
    arms = {
        "a": (arm(hand, noise, vit=30, llm_prefill=70), arm(hand, noise, vit=20, select=2, llm_prefill=40)),
        "b": (arm(hand, noise, vit=60, llm_prefill=90), arm(hand, noise, vit=50, select=2, llm_prefill=50)),
    }
    rows = [
        row
        for session in ("1", "2")
        for row in measure_pairs(arms, Protocol(pairs=12), hand.clock("device_event"), session)
    ]
    stored = [LatencyRow(**json.loads(json.dumps(asdict(row)))) for row in rows]
    Random(0).shuffle(stored)
    assert summarise(stored) == summarise(rows)
    assert list(summarise(stored).base_ms) == ["vit", "select", "llm_prefill", "residual", "total"]
    assert summarise(rows).interval == "sessions"


def test_a_pair_that_an_interruption_cut_in_half_is_not_used():
    rows = totals("1", "a", [(10, 9)] * 6)
    assert summarise(rows[:-1]).pairs == 5
    assert summarise(rows[1:]).pairs == 5


def test_rows_that_do_not_belong_together_are_refused():
    rows = totals("1", "a", [(10, 9)] * 5)
    with pytest.raises(ValueError, match="no complete pair"):
        summarise([])
    with pytest.raises(ValueError, match="mix the clocks"):
        summarise(rows + totals("2", "a", [(10, 9)] * 5, clock="perf_counter_ns"))
    with pytest.raises(ValueError, match="different shapes"):
        summarise(rows + totals("2", "b", [(10, 9)] * 5))
    with pytest.raises(ValueError, match="twice"):
        summarise(rows + rows)
    with pytest.raises(ValueError, match="twice"):
        summarise(rows + [replace(row, order=1 - row.order) for row in rows])


def test_the_error_of_a_median_shrinks_as_it_should():
    """For a normal sample it is 1.2533 sd / sqrt(n)."""
    random = Random(4)
    errors = [median_standard_error([random.gauss(0, 1) for _ in range(400)]) for _ in range(50)]
    assert sum(errors) / 50 == pytest.approx(1.2533 / 20, rel=0.05)
    assert half_width_of_medians([[1.0, 1.0], [2.0, 2.0, 2.0]]) == 0
    assert half_width_of_medians([[1.0, 1.0], [2.0]]) is None


@pytest.mark.parametrize(("shapes", "pairs"), [(1, 5), (1, 30), (3, 8)])
def test_a_session_covers_its_own_truth(shapes: int, pairs: int):
    """Pairs with heavy tails, as on a busy machine: at least 93 of 100 intervals hold the truth (of 400 drawn)."""
    random = Random(f"{shapes}/{pairs}")

    def noise() -> float:
        return random.gauss(0, 0.03) + (random.random() < 0.15) * random.choice((-1, 1)) * random.expovariate(4)

    held = 0
    for _ in range(400):
        drawn = [[noise() for _ in range(pairs)] for _ in range(shapes)]
        centre = sum(sorted(d)[len(d) // 2] / 2 + sorted(d)[(len(d) - 1) // 2] / 2 for d in drawn) / shapes
        held += abs(centre) <= half_width_of_medians(drawn)
    assert held >= 0.93 * 400


def test_a_summary_needs_no_torch():
    """The board and the store read rows without it."""
    code = "import sys, harness.latency.figures, harness.latency.break_even; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_warm_up_is_stored_as_whether_it_settled_and_after_how_many_repetitions():
    settled, not_yet = WarmUp("s", "8x8+21", "base", (5.0,) * 10), WarmUp("s", "8x8+21", "pruned", (5.0,) * 9)
    assert [(row.arm, row.name, row.value) for row in (*settled.resources(), *not_yet.resources())] == [
        ("base", "warmup_settled/8x8+21", 1.0),
        ("base", "warmup_repetitions/8x8+21", 10.0),
        ("pruned", "warmup_settled/8x8+21", 0.0),
        ("pruned", "warmup_repetitions/8x8+21", 9.0),
    ]
