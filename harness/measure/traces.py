"""What a trace says: time by stage, without the profiler's own, and the operators that took most of it.

On an accelerator the device's ranges and kernels count, else the host's. A stage's time is exclusive: a range inside
another belongs to the inner one. The profiler costs a host about the same for every event, so its share of a stage is
the stage's events times that cost, which the other stages tell: theirs in the trace against theirs without profiler.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

PREFILL, PROFILE = "prefill", "profile.json"
STAGES = ("vit", "projector", "select", "llm")
RESIDUAL, TOTAL = "residual", "total"
_HOST_RANGE, _DEVICE_RANGE = "user_annotation", "gpu_user_annotation"
_HOST_OPERATORS, _DEVICE_OPERATORS = ("cpu_op",), ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True)
class Event:
    """A complete event of a trace. row: the thread or stream that it ran on."""

    name: str
    category: str
    row: tuple[Any, Any]
    start_us: float
    duration_us: float


@dataclass(frozen=True)
class StageTime:
    """One stage of one arm in ms. traced_ms: in the trace; ms: with the profiler's own time taken off;
    measured_ms: what a clock measured without the profiler."""

    stage: str
    traced_ms: float
    ms: float
    measured_ms: float


@dataclass(frozen=True)
class OperatorTime:
    """An operator (a kernel, on an accelerator) in one stage, per prefill. ms: its own time without what it calls;
    share: of all operators' own time."""

    name: str
    stage: str
    calls: float
    ms: float
    share: float


def read_events(path: Path) -> list[Event]:
    """The complete events of a Chrome trace that torch's profiler wrote."""
    events = json.loads(path.read_text())["traceEvents"]
    return [
        Event(one["name"], one.get("cat", ""), (one["pid"], one["tid"]), float(one["ts"]), float(one["dur"]))
        for one in events
        if one.get("ph") == "X"
    ]


@dataclass
class _Spent:
    """What one trace holds. ranges_us: repetition -> stage -> exclusive time; totals_us: of each repetition;
    events: stage -> recorded events; operators_us, calls: (stage, operator); on_device: told by the device."""

    ranges_us: list[Counter[str]] = field(default_factory=list)
    totals_us: list[float] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    operators_us: Counter[tuple[str, str]] = field(default_factory=Counter)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    on_device: bool = False


@dataclass
class _Open:
    """An event that encloses what follows, and the stage that it stands in."""

    event: Event
    stage: str
    is_range: bool
    end_us: float


@dataclass(frozen=True)
class _Slowed:
    """A stage of one arm, per prefill: recorded events, ms in the trace, ms without the profiler."""

    events: float
    traced_ms: float
    measured_ms: float


def stage_tables(
    arms: Mapping[str, Iterable[Event]],
    measured_ms: Mapping[str, Mapping[str, Sequence[float]]],
    middle: Callable[[Iterable[float]], float] = median,
) -> dict[str, list[StageTime]]:
    """Every stage of each arm, then its residual and total. Raises ValueError for a trace without a prefill.

    measured_ms: arm -> stage and "total" -> repetitions without the profiler. middle: one number of several.
    """
    stages = {arm: _stages(_spent(events), measured_ms[arm], middle) for arm, events in arms.items()}
    clocked = {(arm, name): one for arm, of in stages.items() for name, one in of.items() if name in STAGES}
    tables: dict[str, list[StageTime]] = {arm: [] for arm in stages}
    for arm, of in stages.items():
        for name, one in of.items():
            cost = _cost_of_an_event(other for key, other in clocked.items() if key != (arm, name))
            tables[arm].append(StageTime(name, one.traced_ms, one.traced_ms - cost * one.events, one.measured_ms))
    return tables


def _stages(
    spent: _Spent, measured_ms: Mapping[str, Sequence[float]], middle: Callable[[Iterable[float]], float]
) -> dict[str, _Slowed]:
    """The stages of an arm, its residual and its total."""
    measured = {stage: middle(times) for stage, times in measured_ms.items()}
    measured[RESIDUAL] = measured[TOTAL] - sum(measured.get(stage, 0.0) for stage in STAGES)
    traced_us = {stage: middle(one[stage] for one in spent.ranges_us) for stage in (*STAGES, RESIDUAL)}
    traced_us[TOTAL] = middle(spent.totals_us)
    events = {**spent.events, TOTAL: sum(spent.events.values())}
    per_prefill = 0.0 if spent.on_device else 1 / len(spent.totals_us)
    return {
        stage: _Slowed(events.get(stage, 0) * per_prefill, us / 1000, measured.get(stage, 0.0))
        for stage, us in traced_us.items()
    }


def _cost_of_an_event(stages: Iterable[_Slowed]) -> float:
    """The ms that make the stages' relative slow-down proportional to their events per ms, by least squares."""
    seen = [(one.events / one.measured_ms, one.traced_ms / one.measured_ms - 1) for one in stages if one.measured_ms]
    squares = sum(density**2 for density, _ in seen)
    return max(0.0, sum(density * slower for density, slower in seen) / squares) if squares else 0.0


def top_operators(events: Iterable[Event], count: int) -> list[OperatorTime]:
    """The operators with most time of their own, longest first. Raises ValueError for a trace without a prefill."""
    spent = _spent(events)
    prefills, everything = len(spent.totals_us), sum(spent.operators_us.values())
    return [
        OperatorTime(name, stage, spent.calls[stage, name] / prefills, us / 1000 / prefills, us / everything)
        for (stage, name), us in spent.operators_us.most_common(count)
    ]


def _spent(events: Iterable[Event]) -> _Spent:
    """What the prefills of a trace spent."""
    events = list(events)
    on_device = any(one.category == _DEVICE_RANGE and one.name == PREFILL for one in events)
    ranges = _DEVICE_RANGE if on_device else _HOST_RANGE
    operators = _DEVICE_OPERATORS if on_device else _HOST_OPERATORS
    rows: dict[tuple[Any, Any], list[Event]] = defaultdict(list)
    for event in events:
        is_ours = event.category == ranges and event.name in (PREFILL, *STAGES)
        if is_ours or event.category in operators:
            rows[event.row].append(event)
    spent = _Spent(on_device=on_device)
    for row in rows.values():
        _walk(sorted(row, key=lambda one: (one.start_us, -one.duration_us)), ranges, spent)
    if not spent.totals_us:
        raise ValueError("the trace holds no prefill; make it with `harness run ... --profile DIR`")
    return spent


def _walk(row: list[Event], ranges: str, spent: _Spent) -> None:
    """Add the events of one thread or stream, in order of their start, outer ones first."""
    stack: list[_Open] = []
    for event in row:
        while stack and stack[-1].end_us <= event.start_us:
            stack.pop()
        is_range = event.category == ranges
        if is_range and event.name == PREFILL:
            spent.totals_us.append(event.duration_us)
            spent.ranges_us.append(Counter({RESIDUAL: event.duration_us}))
            stack = [_Open(event, RESIDUAL, True, event.start_us + event.duration_us)]
        elif stack:
            stage = event.name if is_range else stack[-1].stage
            _count(event, stage, is_range, stack, spent)
            stack.append(_Open(event, stage, is_range, event.start_us + event.duration_us))


def _count(event: Event, stage: str, is_range: bool, stack: list[_Open], spent: _Spent) -> None:
    """Book an event and take its time off the one that it stands in."""
    spent.events[stage] += 1
    if is_range:
        spent.ranges_us[-1][stage] += event.duration_us
        spent.ranges_us[-1][stack[-1].stage] -= event.duration_us
        return
    spent.operators_us[stage, event.name] += event.duration_us
    spent.calls[stage, event.name] += 1
    if not stack[-1].is_range:
        spent.operators_us[stack[-1].stage, stack[-1].event.name] -= event.duration_us
