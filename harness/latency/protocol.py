"""Latency by the protocol "paired-v1": base and pruned side by side in one process, one set of weights.

Each pair runs both arms in random order, AB or BA, each order once in every two pairs, so that neither a drift nor
the place in a pair favours an arm. Every tenth pair is a control (A/A, both base). Before the pairs each arm of each
shape warms up. Every stage of every repetition is kept as a row; `summarise` needs nothing but the rows.

Bounds of a published row: at least 30 pairs a shape and 5 sessions, each a fresh process. This module measures one
session; without an accelerator the default is one session with as many pairs as fit, marked `indicative`.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from random import Random
from typing import Any

from harness.latency.clock import TOTAL, StageClock
from harness.latency.machine import DeviceState, device_reader
from harness.latency.pairs import PREPROCESS, WALL
from harness.latency.statistics import PUBLISHED_PAIRS, PUBLISHED_SESSIONS, LatencySummary, summarise
from harness.models.clock import Clock
from harness.models.engine import Prefill
from harness.models.families.family import Inputs
from harness.records.records import LatencyRow, ResourceRow, Sample
from methods.base import Plan

__all__ = [
    "DeviceRow",
    "LatencySummary",
    "Protocol",
    "WarmUp",
    "measure_pairs",
    "preprocess_rows",
    "summarise",
]
FEWEST_PAIRS = 5  # of a shape, however little time there is
CONTROL_EVERY, FIRST_CONTROL = 10, 4  # pairs 4, 14, 24, ... are controls: one falls even into the shortest session
SETTLED_WINDOW, SETTLED_TOLERANCE = 5, 0.02
FEWEST_WARMUPS, MOST_WARMUPS = 5, 50
WARMUP_SHARE = 1 / 8  # of a shape's time, for each arm, where a time is given
PREPROCESS_REPETITIONS = 5
Run = Callable[[StageClock], Any]


@dataclass(frozen=True)
class Protocol:
    """The bounds of a measurement. At least one of pairs and seconds is given.

    pairs: of a shape, controls not counted; None: as many as fit in `seconds`, at least 5. seconds: for the whole
    run, shared equally by sessions and shapes. warmup: iterations of each arm; None: at least 5, then until the
    median of the last 5 is within 2 % of the 5 before, at most 50 (or an eighth of a shape's time).
    """

    pairs: int | None = None
    warmup: int | None = None
    seconds: float | None = None
    sessions: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pairs is None and self.seconds is None:
            raise ValueError("a latency protocol needs a number of pairs or a time; give --pairs or --minutes")
        for name, least in (("pairs", 1), ("warmup", 0), ("seconds", 0), ("sessions", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")

    @staticmethod
    def default(on_accelerator: bool, seconds: float) -> Protocol:
        """What a published row needs, on an accelerator; elsewhere what fits in `seconds`."""
        if on_accelerator:
            return Protocol(pairs=PUBLISHED_PAIRS, sessions=PUBLISHED_SESSIONS)
        return Protocol(seconds=seconds)


@dataclass(frozen=True)
class WarmUp:
    """The totals in ms of one arm's warm-up, in order."""

    session: str
    shape_key: str
    arm: str
    total_ms: tuple[float, ...]

    @property
    def settled(self) -> bool:
        return is_settled(self.total_ms)

    def resources(self) -> tuple[ResourceRow, ...]:
        """Did the arm settle, 1 or 0 ("warmup_settled/SHAPE"), and after how many runs ("warmup_repetitions/...")."""
        found = {"warmup_settled": self.settled, "warmup_repetitions": len(self.total_ms)}
        return tuple(
            ResourceRow(self.session, self.arm, f"{name}/{self.shape_key}", float(value))
            for name, value in found.items()
        )


@dataclass(frozen=True)
class DeviceRow:
    """The device's state right before or after one repetition. moment: "before" | "after"."""

    session: str
    shape_key: str
    pair: int
    arm: str
    order: int
    moment: str
    state: DeviceState

    def resources(self) -> tuple[ResourceRow, ...]:
        """One row for each quantity known, named "sm_clock_mhz/SHAPE/PAIR/ORDER/MOMENT"."""
        place = f"{self.shape_key}/{self.pair}/{self.order}/{self.moment}"
        return tuple(
            ResourceRow(self.session, self.arm, f"{quantity}/{place}", float(value))
            for quantity, value in asdict(self.state).items()
            if value is not None
        )


Observer = Callable[[WarmUp | DeviceRow], None]


def measure_pairs(
    arms: Mapping[str, tuple[Run, Run]],
    protocol: Protocol,
    clock: StageClock,
    session: str,
    observe: Observer = lambda row: None,
) -> list[LatencyRow]:
    """The rows of one session.

    arms: shape key -> (base, pruned), each running the whole span from pixel values on the device to the first token
    id, and marking its stages on the clock that it is given. session: a name that no other session of the run has.
    observe: receives each warm-up and, where NVML is there, the device's state around each repetition. Pruned
    work hidden from the stages lands in the residual. Beside the stages each repetition has a row "wall", the host's
    own time. Raises whatever an arm raises.
    """
    rows: list[LatencyRow] = []
    share = None if protocol.seconds is None else protocol.seconds / protocol.sessions / len(arms)
    begin = clock.host_s()
    with device_reader() as read_device:
        bench = _Bench(protocol, clock, session, observe, read_device)
        for place, (shape_key, pair_of_arms) in enumerate(arms.items(), start=1):
            deadline = None if share is None else begin + share * place  # time left over goes to the next shape
            bench.warm_up(shape_key, pair_of_arms, share)
            rows += bench.pairs(shape_key, pair_of_arms, deadline)
    return rows


def preprocess_rows(
    preprocess: Mapping[str, Callable[[], Any]], session: str, now_ns: Callable[[], int] = time.perf_counter_ns
) -> list[LatencyRow]:
    """Host time of the preprocessing of each shape, measured apart: it is the same work in both arms.

    The rows carry the arm "base"; the summary shows them beside both.
    """
    rows = []
    for shape_key, work in preprocess.items():
        for repetition in range(PREPROCESS_REPETITIONS):
            begin = now_ns()
            work()
            ms = (now_ns() - begin) / 1e6
            rows.append(LatencyRow(session, shape_key, repetition, "base", 0, False, PREPROCESS, ms, "perf_counter_ns"))
    return rows


def is_settled(total_ms: tuple[float, ...] | list[float]) -> bool:
    """Whether the median of the last 5 is within 2 % of the median of the 5 before."""
    if len(total_ms) < 2 * SETTLED_WINDOW:
        return False
    last = statistics.median(total_ms[-SETTLED_WINDOW:])
    before = statistics.median(total_ms[-2 * SETTLED_WINDOW : -SETTLED_WINDOW])
    return abs(last - before) <= SETTLED_TOLERANCE * before


def pair_orders(random: Random) -> Iterator[tuple[bool, bool]]:
    """Endless (control, pruned first): pairs in blocks of two hold AB and BA once each, in random order."""
    block: list[bool] = []
    for pair in count():
        if pair % CONTROL_EVERY == FIRST_CONTROL:
            yield True, False
            continue
        if not block:
            block = [True, False]
            random.shuffle(block)
        yield False, block.pop()


@dataclass(frozen=True)
class _Bench:
    """What stays the same over one session."""

    protocol: Protocol
    clock: StageClock
    session: str
    observe: Observer
    read_device: Callable[[], DeviceState | None]

    def warm_up(self, shape_key: str, arms: tuple[Run, Run], share_s: float | None) -> None:
        for arm, run in zip(("base", "pruned"), arms, strict=True):
            deadline = None if share_s is None else self.clock.host_s() + share_s * WARMUP_SHARE
            totals: list[float] = []
            while not self._is_warm(totals, deadline):
                totals.append(self._repeat(run)[TOTAL])
            self.observe(WarmUp(self.session, shape_key, arm, tuple(totals)))

    def _is_warm(self, totals: list[float], deadline: float | None) -> bool:
        if self.protocol.warmup is not None:
            return len(totals) >= self.protocol.warmup
        if len(totals) < FEWEST_WARMUPS:
            return False
        late = deadline is not None and self.clock.host_s() >= deadline
        return is_settled(totals) or late or len(totals) >= MOST_WARMUPS

    def pairs(self, shape_key: str, arms: tuple[Run, Run], deadline: float | None) -> list[LatencyRow]:
        base, pruned = arms
        rows: list[LatencyRow] = []
        done = 0
        orders = pair_orders(Random(f"{self.protocol.seed}/{self.session}/{shape_key}"))
        for pair, (control, pruned_first) in enumerate(orders):
            if self._is_enough(done, deadline):
                return rows
            if control:
                both = (("base", base), ("base", base))
            else:
                both = (("pruned", pruned), ("base", base)) if pruned_first else (("base", base), ("pruned", pruned))
                done += 1
            for order, (arm, run) in enumerate(both):
                self._look(shape_key, pair, arm, order, "before")
                times = self._repeat(run)
                self._look(shape_key, pair, arm, order, "after")
                rows += [
                    LatencyRow(self.session, shape_key, pair, arm, order, control, stage, ms, self._kind(stage))
                    for stage, ms in times.items()
                ]
        raise AssertionError("the orders have no end")

    def _is_enough(self, done: int, deadline: float | None) -> bool:
        wanted = self.protocol.pairs
        if wanted is not None and done >= wanted:
            return True
        fewest = FEWEST_PAIRS if wanted is None else min(FEWEST_PAIRS, wanted)
        return deadline is not None and done >= fewest and self.clock.host_s() >= deadline

    def _repeat(self, run: Run) -> dict[str, float]:
        with _no_garbage_collection():
            self.clock.start()
            run(self.clock)
            self.clock.stop()
        return {**self.clock.times_ms(), WALL: self.clock.wall_ms()}

    def _kind(self, stage: str) -> str:
        return "perf_counter_ns" if stage == WALL else self.clock.kind

    def _look(self, shape_key: str, pair: int, arm: str, order: int, moment: str) -> None:
        state = self.read_device()
        if state is not None:
            self.observe(DeviceRow(self.session, shape_key, pair, arm, order, moment, state))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Python's collector would strike in either arm at random."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


Arm = Callable[[Clock], Prefill]


@dataclass(frozen=True)
class TimedCase:
    """One timed sample, ready on the device."""

    sample: Sample
    inputs: Inputs
    plan: Plan
    full: Plan
