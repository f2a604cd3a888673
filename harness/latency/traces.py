"""What a trace says: time by stage, without the profiler's own, and the operators that took most of it.

On an accelerator the device's ranges and kernels count, else the host's. A stage's time is exclusive: a range inside
another belongs to the inner one. On a host the profiler's share of a stage is its events times what one costs, about
1 us among the ViT's large tensors and half of that in the LLM, as other stages of that tower tell by their clocks. A
selection inside the ViT has been seen half-way between (docs/log.md), and is taken to be.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from harness.records.errors import UsageError
from harness.records.records import SHORT_STAGES, STAGES

PREFILL, PROFILE = "prefill", "profile.json"
RANGES = tuple(SHORT_STAGES.get(stage, stage) for stage in STAGES)
RESIDUAL, TOTAL = "residual", "total"
VISION, LANGUAGE = "vision", "language"
_TOWER_OF = {"vit": VISION, "projector": VISION, "llm": LANGUAGE}  # a selection belongs to the one that it stands in
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
    events: (stage, tower) -> recorded events; operators_us, calls: (stage, operator); on_device: told by the device."""

    ranges_us: list[Counter[str]] = field(default_factory=list)
    totals_us: list[float] = field(default_factory=list)
    events: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    operators_us: Counter[tuple[str, str]] = field(default_factory=Counter)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    on_device: bool = False


@dataclass
class _Open:
    """An event that encloses what follows, and the stage that it stands in. towers: whose prices it pays, in parts."""

    event: Event
    stage: str
    towers: tuple[str, ...]
    is_range: bool
    end_us: float


@dataclass(frozen=True)
class _Slowed:
    """A stage of one arm, per prefill: tower -> recorded events; ms in the trace, ms without the profiler."""

    events: Mapping[str, float]
    traced_ms: float
    measured_ms: float


def stage_tables(
    arms: Mapping[str, Iterable[Event]],
    measured_ms: Mapping[str, Mapping[str, Sequence[float]]],
) -> dict[str, list[StageTime]]:
    """Every stage of each arm, then its residual and total. Raises ValueError for a trace without a prefill.

    measured_ms: arm -> stage and "total" -> repetitions without the profiler. Of several repetitions: the median.
    """
    stages = {
        (arm, name): one
        for arm, events in arms.items()
        for name, one in _stages(_spent(events), measured_ms[arm]).items()
    }
    tables: dict[str, list[StageTime]] = {arm: [] for arm in arms}
    for (arm, name), one in stages.items():
        ms = one.traced_ms
        for tower, events in one.events.items():
            telling = [of for key, of in stages.items() if _TOWER_OF.get(key[1]) == tower and key != (arm, name)]
            ms -= events * _cost_of_an_event(telling, tower)
        tables[arm].append(StageTime(name, one.traced_ms, ms, one.measured_ms))
    return tables


def _stages(spent: _Spent, measured_ms: Mapping[str, Sequence[float]]) -> dict[str, _Slowed]:
    """The stages of an arm, its residual and its total."""
    measured = {stage: median(times) for stage, times in measured_ms.items()}
    measured[RESIDUAL] = measured[TOTAL] - sum(measured.get(stage, 0.0) for stage in RANGES)
    traced_us = {stage: median(one[stage] for one in spent.ranges_us) for stage in (*RANGES, RESIDUAL)}
    traced_us[TOTAL] = median(spent.totals_us)
    events: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for (stage, tower), count in spent.events.items():
        for row in (stage, TOTAL):
            events[row][tower] += 0 if spent.on_device else count / len(spent.totals_us)
    return {stage: _Slowed(events[stage], us / 1000, measured.get(stage, 0.0)) for stage, us in traced_us.items()}


def _cost_of_an_event(stages: Iterable[_Slowed], tower: str) -> float:
    """The ms that make the stages' relative slow-down proportional to their events per ms, by least squares."""
    seen = [
        (one.events[tower] / one.measured_ms, one.traced_ms / one.measured_ms - 1) for one in stages if one.measured_ms
    ]
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
        is_ours = event.category == ranges and event.name in (PREFILL, *RANGES)
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
            stack = [_Open(event, RESIDUAL, (LANGUAGE,), True, event.start_us + event.duration_us)]
        elif stack:
            stage = event.name if is_range else stack[-1].stage
            towers = _payers(stage, stack[-1].towers)
            opened = _Open(event, stage, towers, is_range, event.start_us + event.duration_us)
            _count(opened, stack[-1], spent)
            stack.append(opened)


def _payers(stage: str, outer: tuple[str, ...]) -> tuple[str, ...]:
    if stage in _TOWER_OF:
        return (_TOWER_OF[stage],)
    return (VISION, LANGUAGE) if stage == "select" and VISION in outer else outer


def _count(inner: _Open, outer: _Open, spent: _Spent) -> None:
    """Book an event and take its time off the one that it stands in."""
    stage, event = inner.stage, inner.event
    for tower in inner.towers:
        spent.events[stage, tower] += 1 / len(inner.towers)
    if inner.is_range:
        spent.ranges_us[-1][stage] += event.duration_us
        spent.ranges_us[-1][outer.stage] -= event.duration_us
        return
    spent.operators_us[stage, event.name] += event.duration_us
    spent.calls[stage, event.name] += 1
    if not outer.is_range:
        spent.operators_us[outer.stage, outer.event.name] -= event.duration_us


@dataclass(frozen=True)
class Profile:
    """What a folder of traces says. title, shape_key: of the run and sample; stages, operators: arm -> rows."""

    title: str
    shape_key: str
    stages: Mapping[str, list[StageTime]]
    operators: Mapping[str, list[OperatorTime]]


def read_profile(folder: Path, top: int) -> Profile:
    """The traces of both arms, and the `top` operators of each. Raises UsageError where a file is missing or torn."""
    if not (folder / PROFILE).is_file():
        raise UsageError(f"no profile in {folder}; make one with: harness run --method NAME --profile {folder}")
    try:
        facts = json.loads((folder / PROFILE).read_text(encoding="utf-8"))
        arms = {
            arm: [event for name in names for event in read_events(folder / arm / Path(name).name)]
            for arm, names in facts["traces"].items()
        }
        stages = stage_tables(arms, facts["measured_ms"])
        operators = {arm: top_operators(events, top) for arm, events in arms.items()}
        return Profile(str(facts["title"]), str(facts["shape_key"]), stages, operators)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise UsageError(f"the profile in {folder} cannot be read ({problem}); make it again") from problem
