"""What a trace says: time by stage, without the profiler's own, and the operators that took most of it.

On an accelerator the device's ranges and kernels count, else the host's. A stage's time is exclusive: a range inside
another belongs to the inner one. The profiler costs about the same for every event, so its share of a stage is told
from the stage's events and from what the same prefill took without it.
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
    events: stage -> recorded events; operators_us, calls: (stage, operator)."""

    ranges_us: list[Counter[str]] = field(default_factory=list)
    totals_us: list[float] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    operators_us: Counter[tuple[str, str]] = field(default_factory=Counter)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass
class _Open:
    """An event that encloses what follows, and the stage that it stands in."""

    event: Event
    stage: str
    is_range: bool
    end_us: float


def stage_table(
    events: Iterable[Event],
    measured_ms: Mapping[str, Sequence[float]],
    middle: Callable[[Iterable[float]], float] = median,
) -> list[StageTime]:
    """Every stage, then the residual and the total. Raises ValueError for a trace without a prefill.

    measured_ms: stage and "total" -> repetitions without the profiler. middle: one number of several repetitions.
    """
    spent, on_device = _spent(events)
    total = middle(spent.totals_us) / 1000
    traced = {stage: middle(one[stage] for one in spent.ranges_us) / 1000 for stage in (*STAGES, RESIDUAL)}
    known = {stage: middle(times) for stage, times in measured_ms.items()}
    known[RESIDUAL] = known[TOTAL] - sum(known.get(stage, 0.0) for stage in STAGES)
    overhead = 0.0 if on_device else max(0.0, total - known[TOTAL])
    recorded = sum(spent.events.values())
    rows = [
        StageTime(stage, ms, ms - overhead * spent.events[stage] / max(recorded, 1), known.get(stage, 0.0))
        for stage, ms in traced.items()
    ]
    return [*rows, StageTime(TOTAL, total, total - overhead, known[TOTAL])]


def top_operators(events: Iterable[Event], count: int) -> list[OperatorTime]:
    """The operators with most time of their own, longest first. Raises ValueError for a trace without a prefill."""
    spent, _ = _spent(events)
    prefills, everything = len(spent.totals_us), sum(spent.operators_us.values())
    return [
        OperatorTime(name, stage, spent.calls[stage, name] / prefills, us / 1000 / prefills, us / everything)
        for (stage, name), us in spent.operators_us.most_common(count)
    ]


def _spent(events: Iterable[Event]) -> tuple[_Spent, bool]:
    """What the prefills of a trace spent, and whether the device told it."""
    events = list(events)
    on_device = any(one.category == _DEVICE_RANGE and one.name == PREFILL for one in events)
    ranges = _DEVICE_RANGE if on_device else _HOST_RANGE
    operators = _DEVICE_OPERATORS if on_device else _HOST_OPERATORS
    rows: dict[tuple[Any, Any], list[Event]] = defaultdict(list)
    for event in events:
        is_ours = event.category == ranges and event.name in (PREFILL, *STAGES)
        if is_ours or event.category in operators:
            rows[event.row].append(event)
    spent = _Spent()
    for row in rows.values():
        _walk(sorted(row, key=lambda one: (one.start_us, -one.duration_us)), ranges, spent)
    if not spent.totals_us:
        raise ValueError("the trace holds no prefill; make it with `harness run ... --profile DIR`")
    return spent, on_device


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
