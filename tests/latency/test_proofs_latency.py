"""Timing told on the embedded model: what is planted is found, what is not there is not, and nothing can be hidden.

The clock is this thread's CPU time: as real as wall time on one thread, and deaf to the other work of the machine.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest
import torch

import methods
from harness.benchmarks import open_benchmark
from harness.budget.spec import BudgetSpec
from harness.latency.clock import PerfCounterBackend, StageClock
from harness.latency.profiler import profile_request
from harness.latency.protocol import Protocol, Run, measure_pairs, summarise
from harness.latency.statistics import LatencySummary
from harness.latency.traces import read_profile
from harness.models.engine import Engine, Inputs
from harness.models.loading import OpenModel
from harness.request.opening import Sources
from harness.request.request import Request
from methods.base import INTERFACE, Budget, Plan, Pruner, Selection, Shape, Signal, Site, View

pytestmark = pytest.mark.proof


def nothing() -> None:
    return None


@dataclass(frozen=True)
class Idle(Pruner):
    """Keeps every token. deciding: work inside its own stage; declaring: work that it does outside of any."""

    deciding: Callable[[], None] = field(default=nothing)
    declaring: Callable[[], None] = field(default=nothing)
    name = "idle"
    hooks = (INTERFACE,)

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        self.declaring()
        return ()

    def at_interface(self, view: View) -> Selection | None:
        self.deciding()
        return None


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def first_question(model: OpenModel) -> Inputs:
    """The inputs of one question of the embedded suite."""
    suite = open_benchmark("reference-quick")
    return model.prepare(suite.load_images(suite.samples[0]), suite.prompt(suite.samples[0]))


@pytest.fixture
def prefill(reference_a: OpenModel, one_thread: None) -> Run:
    """DivPrune's prefill of that question at half of its tokens."""
    engine, inputs = reference_a.engine(methods.build("divprune")), first_question(reference_a)
    plan = engine.plan(Budget("layer_average", inputs.shape.n // 2), inputs.shape)
    return lambda clock: engine.prefill(inputs, plan, clock=clock)


@pytest.fixture
def measured(reference_a: OpenModel, one_thread: None) -> Callable[..., LatencySummary]:
    """The summary of one session of an idle pruner against none, on one question of the embedded suite."""
    inputs = first_question(reference_a)
    everything = (inputs.shape.n,) * inputs.shape.llm_layers

    def arm(pruner: Pruner | None) -> Run:
        engine: Engine = reference_a.engine(pruner)
        plan = Plan({Site(INTERFACE): inputs.shape.n} if pruner else {}, everything)
        return lambda clock: engine.prefill(inputs, plan, clock=clock)

    def measure(pruner: Pruner, session: str = "1") -> LatencySummary:
        clock = StageClock(PerfCounterBackend(time.thread_time_ns), time.thread_time_ns)
        arms = {"8x8+1": (arm(None), arm(pruner))}
        return summarise(measure_pairs(arms, Protocol(pairs=25, warmup=5), clock, session))

    measure.base = arm(None)  # type: ignore[attr-defined]
    return measure


def share_of_a_prefill(base: Run, share: float) -> Callable[[], None]:
    """Work that takes about that share of the base's time: products of matrices, counted out side by side with it."""
    matrix = torch.ones(128, 128)
    clock = StageClock(PerfCounterBackend(time.thread_time_ns), time.thread_time_ns)

    def work(products: int) -> None:
        for _ in range(products):
            matrix @ matrix

    def cpu_ns(run: Callable[[], object]) -> int:
        begin = time.thread_time_ns()
        run()
        return time.thread_time_ns() - begin

    def prefill() -> None:
        clock.start()
        base(clock)
        clock.stop()

    work(100)
    ratios = [cpu_ns(prefill) / cpu_ns(lambda: work(100)) for _ in range(15)]
    products = round(100 * median(ratios) * share)
    return lambda: work(products)


def test_a_planted_slowdown_of_10_percent_is_found(measured):
    summary = measured(Idle(deciding=share_of_a_prefill(measured.base, 0.10)))
    assert summary.high is not None and summary.high < 0
    assert summary.lr == pytest.approx(-0.10, abs=0.04)
    assert summary.verdict == "slower than no pruning"


def test_a_pruner_that_does_nothing_gains_and_loses_nothing(measured):
    """Each interval may miss with 5 %; that two of three do has less than 1 %."""
    held = [(s.low, s.high) for s in (measured(Idle(), str(session)) for session in range(3))]
    assert sum(low <= 0.001 and high >= -0.005 for low, high in held) >= 2, held  # half a percent of bookkeeping


@pytest.mark.parametrize(("where", "lands"), [("deciding", "select"), ("declaring", "residual")])
def test_work_cannot_be_hidden(measured, where: str, lands: str):
    """20 % of a prefill, done in the pruner's stage or outside all of them."""
    summary = measured(Idle(**{where: share_of_a_prefill(measured.base, 0.20)}))
    grown = summary.pruned_ms[lands] - summary.base_ms.get(lands, 0.0)
    assert grown / summary.base_ms["total"] == pytest.approx(0.20, abs=0.06)
    assert summary.residual_fault == (lands == "residual")
    other = {"select": "residual", "residual": "select"}[lands]
    assert summary.pruned_ms[other] / summary.base_ms["total"] < 0.03


@pytest.mark.parametrize("method", ["divprune", "quietprune"])
def test_a_corrected_trace_agrees_with_a_clock_without_the_profiler_within_10_percent(
    method: str, tmp_path: Path, one_thread: None
):
    """Each stage of both arms, the middle of five profiles: a burst of other work spoils one of them, not three."""
    off: dict[tuple[str, str], list[float]] = defaultdict(list)
    sources = Sources().opened_once()
    for number in range(5):
        profile_request(Request(method, BudgetSpec.parse("50%"), limit=1), tmp_path / str(number), sources)
        for arm, rows in read_profile(tmp_path / str(number), 1).stages.items():
            for row in rows:
                if row.measured_ms and row.stage != "residual":
                    off[arm, row.stage].append(row.ms / row.measured_ms - 1)
    stages = {"vit", "projector", "llm", "total"}
    assert set(off) == {("pruned", "select")} | {(arm, stage) for arm in ("base", "pruned") for stage in stages}
    assert {key: round(median(one), 3) for key, one in off.items() if abs(median(one)) > 0.10} == {}, dict(off)
