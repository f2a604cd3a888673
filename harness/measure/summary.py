"""What latency rows say: the latency reduction with its interval, and where the time of each arm goes.

Per pair log(t_pruned / t_base) of the total; the median of each shape; the mean over shapes, each shape of equal
weight (so a session's value is the log of a geometric mean of ratios); then over sessions.

* Two sessions or more: Student t on the sessions' values, S - 1 degrees of freedom (`interval` "sessions").
* One session: "within-session". It knows nothing of how sessions differ, covers too little, and is never ranked.
  Each shape's median has the standard error that two of its order statistics tell (their coverage of the median is
  known whatever the distribution); the errors add up over shapes and the degrees of freedom are Welch's.

LR = 1 - exp(mean), never clipped: below 0 the method is slower than no pruning. Milliseconds are medians over the
pairs of a shape, all sessions together, then means over shapes; controls take no part in them. A stage that did not
run in a repetition took 0 ms there. A pair whose partner is missing, as an interruption leaves it, is not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median

from harness.measure.clock import TOTAL, PerfCounterBackend, is_host_bound, residual_ms
from harness.measure.intervals import half_width_of_mean, half_width_of_medians, quantile
from harness.records import LatencyRow

STAGES = ("vit", "projector", "select", "llm_prefill")
WALL, PREPROCESS, RESIDUAL = "wall", "preprocess", "residual"
PUBLISHED_PAIRS, PUBLISHED_SESSIONS = 30, 5
RESIDUAL_FAULT_RATIO = 0.05
_TWICE = "session {!r} has pair {} of shape {!r} twice; give each session a name of its own"


@dataclass(frozen=True)
class LatencySummary:
    """Latency of a method against no pruning. Ratios are of the total; low and high bound 95 %.

    clock: what timed the stages. interval: "sessions" | "within-session"; low and high are None where one pair is all
    there is. pairs: base against pruned, over all shapes and sessions. indicative: not publishable, for want of an
    accelerator, of 5 sessions or of 30 pairs a shape and session.
    base_ms, pruned_ms: stage -> median ms; besides the stages "residual", "total" (the p50) and, if it was measured,
    "preprocess". *_p90_ms: of the total. *_residual_ratio: residual / total; residual_fault: above 5 %, so that the
    stages do not tell the whole. host_bound: in either arm the host's wall time exceeds the device's by more than
    5 %; None where it was not stored.
    aa_*: second / first repetition of the controls; aa_flagged: their interval excludes 1, distrust the session;
    None with too few controls.
    """

    clock: str
    lr: float
    low: float | None
    high: float | None
    interval: str
    sessions: int
    shapes: int
    pairs: int
    indicative: bool
    base_ms: Mapping[str, float]
    pruned_ms: Mapping[str, float]
    base_p90_ms: float
    pruned_p90_ms: float
    base_residual_ratio: float
    pruned_residual_ratio: float
    residual_fault: bool
    host_bound: bool | None
    aa_ratio: float | None
    aa_low: float | None
    aa_high: float | None
    aa_flagged: bool | None

    @property
    def verdict(self) -> str:
        """The result in words."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "no difference shown"
        return "faster than no pruning" if self.low > 0 else "slower than no pruning"


@dataclass(frozen=True)
class _Repetition:
    session: str
    shape: str
    pair: int
    arm: str
    order: int
    control: bool
    ms: Mapping[str, float]


def summarise(rows: Iterable[LatencyRow]) -> LatencySummary:
    """The summary of one run's rows on one machine, in any order of the rows.

    Raises ValueError when the rows mix clocks, repeat a measurement, cover different shapes in different sessions, or
    hold no complete pair.
    """
    rows = list(rows)
    clock = _one_clock(rows)
    repetitions = _repetitions(rows)
    pairs = _complete(repetitions, control=False)
    logs = _log_ratios(pairs)
    if not logs:
        raise ValueError("no complete pair of base and pruned among the latency rows; measure again")
    centre, half, interval = _interval(logs)
    measured = [repetition for pair in pairs for repetition in pair]
    by_arm = {arm: _by_shape(r for r in measured if r.arm == arm) for arm in ("base", "pruned")}
    residual = {arm: _over_shapes(by_arm[arm], lambda ms: residual_ms(_stages(ms)) / ms[TOTAL]) for arm in by_arm}
    fewest = min(len(values) for shapes in logs.values() for values in shapes.values())
    before = _preprocess(rows)
    names = _stage_names(measured)
    return LatencySummary(
        clock=clock,
        lr=1 - math.exp(centre),
        low=None if half is None else 1 - math.exp(centre + half),
        high=None if half is None else 1 - math.exp(centre - half),
        interval=interval,
        sessions=len(logs),
        shapes=len(by_arm["base"]),
        pairs=len(pairs),
        indicative=clock == PerfCounterBackend.kind or len(logs) < PUBLISHED_SESSIONS or fewest < PUBLISHED_PAIRS,
        base_ms=_medians(by_arm["base"], names) | before,
        pruned_ms=_medians(by_arm["pruned"], names) | before,
        base_p90_ms=_over_shapes(by_arm["base"], lambda ms: ms[TOTAL], lambda values: quantile(values, 0.9)),
        pruned_p90_ms=_over_shapes(by_arm["pruned"], lambda ms: ms[TOTAL], lambda values: quantile(values, 0.9)),
        base_residual_ratio=residual["base"],
        pruned_residual_ratio=residual["pruned"],
        residual_fault=any(abs(ratio) > RESIDUAL_FAULT_RATIO for ratio in residual.values()),
        host_bound=_host_bound(by_arm.values()) if any(row.stage == WALL for row in rows) else None,
        **_controls(_complete(repetitions, control=True)),
    )


def _one_clock(rows: list[LatencyRow]) -> str:
    kinds = sorted({row.clock for row in rows if row.stage == TOTAL})
    if len(kinds) > 1:
        raise ValueError(f"the latency rows mix the clocks {' and '.join(kinds)}; summarise each apart")
    return kinds[0] if kinds else ""


def _repetitions(rows: list[LatencyRow]) -> list[_Repetition]:
    times: dict[tuple[str, str, int, str, int, bool], dict[str, float]] = {}
    for row in rows:
        if row.stage == PREPROCESS:
            continue
        ms = times.setdefault((row.session, row.shape_key, row.pair, row.arm, row.order, row.control), {})
        if row.stage in ms:
            raise ValueError(_TWICE.format(row.session, row.pair, row.shape_key))
        ms[row.stage] = row.ms
    return [_Repetition(*key, ms) for key, ms in times.items() if TOTAL in ms]


def _complete(repetitions: list[_Repetition], control: bool) -> list[tuple[_Repetition, _Repetition]]:
    """Pairs with both repetitions there: (base, pruned), or (first, second) of controls."""
    found: dict[tuple[str, str, int], list[_Repetition]] = {}
    for repetition in repetitions:
        if repetition.control == control:
            found.setdefault((repetition.session, repetition.shape, repetition.pair), []).append(repetition)
    pairs = []
    for (session, shape, number), pair in sorted(found.items()):
        if len(pair) > 2:
            raise ValueError(_TWICE.format(session, number, shape))
        if len(pair) == 2:
            first, second = sorted(pair, key=lambda r: r.order if control else r.arm)
            pairs.append((first, second))
    return pairs


def _log_ratios(pairs: list[tuple[_Repetition, _Repetition]]) -> dict[str, dict[str, list[float]]]:
    """Session -> shape -> log(t_pruned / t_base) of its pairs. Raises ValueError when sessions differ in shapes."""
    logs: dict[str, dict[str, list[float]]] = {}
    for base, pruned in pairs:
        values = logs.setdefault(base.session, {}).setdefault(base.shape, [])
        values.append(math.log(pruned.ms[TOTAL] / base.ms[TOTAL]))
    if len({frozenset(shapes) for shapes in logs.values()}) > 1:
        raise ValueError("the sessions measured different shapes; summarise those with the same shapes together")
    return logs


def _interval(logs: Mapping[str, Mapping[str, list[float]]]) -> tuple[float, float | None, str]:
    """Centre and half width of the mean log ratio, and the interval's kind."""
    values = [fmean(median(pairs) for pairs in shapes.values()) for shapes in logs.values()]
    if len(values) > 1:
        return fmean(values), half_width_of_mean(values), "sessions"
    shapes = list(next(iter(logs.values())).values())
    return values[0], half_width_of_medians(shapes), "within-session"


def _controls(pairs: list[tuple[_Repetition, _Repetition]]) -> dict[str, float | bool | None]:
    logs = [math.log(second.ms[TOTAL] / first.ms[TOTAL]) for first, second in pairs]
    found: dict[str, float | bool | None] = dict.fromkeys(("aa_ratio", "aa_low", "aa_high", "aa_flagged"))
    if logs:
        found["aa_ratio"] = math.exp(fmean(logs))
    if len(logs) > 1:
        half = half_width_of_mean(logs)
        low, high = math.exp(fmean(logs) - half), math.exp(fmean(logs) + half)
        found.update(aa_low=low, aa_high=high, aa_flagged=not low <= 1 <= high)
    return found


def _by_shape(repetitions: Iterable[_Repetition]) -> dict[str, list[Mapping[str, float]]]:
    shapes: dict[str, list[Mapping[str, float]]] = {}
    for repetition in repetitions:
        shapes.setdefault(repetition.shape, []).append(repetition.ms)
    return shapes


def _over_shapes(
    shapes: Mapping[str, list[Mapping[str, float]]],
    value: Callable[[Mapping[str, float]], float],
    middle: Callable[[list[float]], float] = median,
) -> float:
    """The mean over shapes of the middle of a value over repetitions."""
    return fmean(middle([value(ms) for ms in repetitions]) for repetitions in shapes.values())


def _stages(ms: Mapping[str, float]) -> dict[str, float]:
    return {stage: value for stage, value in ms.items() if stage != WALL}


def _stage_names(repetitions: list[_Repetition]) -> list[str]:
    """Every stage of either arm, in the order of the pipeline, unknown ones last."""
    met = {stage for repetition in repetitions for stage in repetition.ms} - {TOTAL, WALL}
    return [stage for stage in STAGES if stage in met] + sorted(met.difference(STAGES))


def _medians(shapes: Mapping[str, list[Mapping[str, float]]], names: list[str]) -> dict[str, float]:
    def of(stage: str) -> Callable[[Mapping[str, float]], float]:
        return lambda ms: ms.get(stage, 0.0)

    medians = {stage: _over_shapes(shapes, of(stage)) for stage in names}
    medians[RESIDUAL] = _over_shapes(shapes, lambda ms: residual_ms(_stages(ms)))
    medians[TOTAL] = _over_shapes(shapes, of(TOTAL))
    return medians


def _preprocess(rows: list[LatencyRow]) -> dict[str, float]:
    shapes: dict[str, list[float]] = {}
    for row in rows:
        if row.stage == PREPROCESS:
            shapes.setdefault(row.shape_key, []).append(row.ms)
    return {PREPROCESS: fmean(median(values) for values in shapes.values())} if shapes else {}


def _host_bound(arms: Iterable[Mapping[str, list[Mapping[str, float]]]]) -> bool:
    return any(
        is_host_bound(_over_shapes(shapes, lambda ms: ms[WALL]), _over_shapes(shapes, lambda ms: ms[TOTAL]))
        for shapes in arms
    )
