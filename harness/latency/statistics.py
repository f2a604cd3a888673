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

from harness.latency.clock import TOTAL, PerfCounterBackend, is_host_bound, residual_ms
from harness.latency.pairs import (
    PREPROCESS,
    WALL,
    Repetition,
    by_shape,
    complete_pairs,
    half_width_of_mean,
    half_width_of_medians,
    quantile,
    repetitions_of,
)
from harness.records.records import STAGES, LatencyRow, ResourceRow

PUBLISHED_PAIRS, PUBLISHED_SESSIONS = 30, 5
WIDEST_CONTROL = 0.05  # half width of the controls' interval, as a ratio: wider ones cannot vouch for anything
THROTTLE_BITS = 4 | 8 | 32 | 64 | 128  # NVML: power cap, hardware slow-down, heat (twice), power brake
THROTTLED_SHARE = 0.05  # of the repetitions; one moment in a long session is no reason


def reasons_for_doubt(
    clock: str, sessions: int, fewest_pairs: int, controls: tuple[float, float] | None, throttled: bool | None
) -> tuple[str, ...]:
    """What keeps a row from being published; () for one that can be.

    fewest_pairs: of any shape in any session. controls: bounds of the A/A ratio's interval, None with too few.
    """
    found = []
    if clock == PerfCounterBackend.kind:
        found.append("timed on a CPU")
    if sessions < PUBLISHED_SESSIONS:
        found.append(f"{sessions} of {PUBLISHED_SESSIONS} sessions")
    if fewest_pairs < PUBLISHED_PAIRS:
        found.append(f"{fewest_pairs} of {PUBLISHED_PAIRS} pairs in a shape")
    if throttled:
        found.append("the device was throttled")
    if controls is not None and not controls[0] <= 1 <= controls[1]:
        found.append("equal arms differed (A/A)")
    elif controls is not None and (controls[1] - controls[0]) / 2 > WIDEST_CONTROL:
        found.append("noisy: equal arms could not be told to be equal (A/A)")
    return tuple(found)


def was_throttled(resources: Iterable[ResourceRow]) -> bool | None:
    """Whether the device held itself back in more than 5 % of the moments looked at; None where it does not say."""
    bits = [int(row.value) for row in resources if row.name.startswith("throttle_bits/")]
    return sum(bool(one & THROTTLE_BITS) for one in bits) > THROTTLED_SHARE * len(bits) if bits else None


__all__ = ["PUBLISHED_PAIRS", "PUBLISHED_SESSIONS", "LatencySummary", "summarise"]
RESIDUAL = "residual"
RESIDUAL_FAULT_RATIO = 0.05


@dataclass(frozen=True)
class LatencySummary:
    """Latency of a method against no pruning. Ratios are of the total; low and high bound 95 %.

    clock: what timed the stages. interval: "sessions" | "within-session"; low and high are None where one pair is all
    there is. pairs: base against pruned, over all shapes and sessions. doubts: why it is not publishable; () if it is.
    base_ms, pruned_ms: stage -> median ms; besides the stages "residual", "total" (the p50) and, if it was measured,
    "preprocess". *_p90_ms: of the total. *_ttft_ms: time to the first token as a user waits for it, preprocessing and
    the host's wall time; None where they were not stored. *_residual_ratio: residual / total; residual_fault: above
    5 %, so that the stages do not tell the whole. host_bound: in either arm the host's wall time exceeds the device's
    by more than 5 %; None where it was not stored.
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
    doubts: tuple[str, ...]
    base_ms: Mapping[str, float]
    pruned_ms: Mapping[str, float]
    base_p90_ms: float
    pruned_p90_ms: float
    base_ttft_ms: float | None
    pruned_ttft_ms: float | None
    base_residual_ratio: float
    pruned_residual_ratio: float
    residual_fault: bool
    host_bound: bool | None
    aa_ratio: float | None
    aa_low: float | None
    aa_high: float | None
    aa_flagged: bool | None

    @property
    def indicative(self) -> bool:
        """Whether anything speaks against publishing it."""
        return bool(self.doubts)

    @property
    def verdict(self) -> str:
        """The result in words."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "no difference shown"
        return "faster than no pruning" if self.low > 0 else "slower than no pruning"


def summarise(rows: Iterable[LatencyRow], throttled: bool | None = None) -> LatencySummary:
    """The summary of one run's rows on one machine, in any order of the rows.

    throttled: whether the device held itself back meanwhile, None where it did not say.

    Raises ValueError when the rows mix clocks, repeat a measurement, cover different shapes in different sessions, or
    hold no complete pair.
    """
    rows = list(rows)
    clock = _one_clock(rows)
    repetitions = repetitions_of(rows)
    pairs = complete_pairs(repetitions, control=False)
    logs = _log_ratios(pairs)
    if not logs:
        raise ValueError("no complete pair of base and pruned among the latency rows; measure again")
    centre, half, interval = _interval(logs)
    measured = [repetition for pair in pairs for repetition in pair]
    by_arm = {arm: by_shape(r for r in measured if r.arm == arm) for arm in ("base", "pruned")}
    residual = {arm: _over_shapes(by_arm[arm], lambda ms: residual_ms(_stages(ms)) / ms[TOTAL]) for arm in by_arm}
    fewest = min(len(values) for shapes in logs.values() for values in shapes.values())
    before = _preprocess(rows)
    names = _stage_names(measured)
    walls = any(row.stage == WALL for row in rows)
    controls = _controls(complete_pairs(repetitions, control=True))
    bounds = None if controls["aa_low"] is None else (controls["aa_low"], controls["aa_high"])
    return LatencySummary(
        clock=clock,
        lr=1 - math.exp(centre),
        low=None if half is None else 1 - math.exp(centre + half),
        high=None if half is None else 1 - math.exp(centre - half),
        interval=interval,
        sessions=len(logs),
        shapes=len(by_arm["base"]),
        pairs=len(pairs),
        doubts=reasons_for_doubt(clock, len(logs), fewest, bounds, throttled),
        base_ms=_medians(by_arm["base"], names) | before,
        pruned_ms=_medians(by_arm["pruned"], names) | before,
        base_p90_ms=_over_shapes(by_arm["base"], lambda ms: ms[TOTAL], lambda values: quantile(values, 0.9)),
        pruned_p90_ms=_over_shapes(by_arm["pruned"], lambda ms: ms[TOTAL], lambda values: quantile(values, 0.9)),
        **{f"{arm}_ttft_ms": _ttft_ms(by_arm[arm], before) if walls else None for arm in by_arm},
        base_residual_ratio=residual["base"],
        pruned_residual_ratio=residual["pruned"],
        residual_fault=any(abs(ratio) > RESIDUAL_FAULT_RATIO for ratio in residual.values()),
        host_bound=_host_bound(by_arm.values()) if walls else None,
        **controls,
    )


def _one_clock(rows: list[LatencyRow]) -> str:
    kinds = sorted({row.clock for row in rows if row.stage == TOTAL})
    if len(kinds) > 1:
        raise ValueError(f"the latency rows mix the clocks {' and '.join(kinds)}; summarise each apart")
    return kinds[0] if kinds else ""


def _log_ratios(pairs: list[tuple[Repetition, Repetition]]) -> dict[str, dict[str, list[float]]]:
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


def _controls(pairs: list[tuple[Repetition, Repetition]]) -> dict[str, float | bool | None]:
    logs = [math.log(second.ms[TOTAL] / first.ms[TOTAL]) for first, second in pairs]
    found: dict[str, float | bool | None] = dict.fromkeys(("aa_ratio", "aa_low", "aa_high", "aa_flagged"))
    if logs:
        found["aa_ratio"] = math.exp(fmean(logs))
    if len(logs) > 1:
        half = half_width_of_mean(logs)
        low, high = math.exp(fmean(logs) - half), math.exp(fmean(logs) + half)
        found.update(aa_low=low, aa_high=high, aa_flagged=not low <= 1 <= high)
    return found


def _over_shapes(
    shapes: Mapping[str, list[Mapping[str, float]]],
    value: Callable[[Mapping[str, float]], float],
    middle: Callable[[list[float]], float] = median,
) -> float:
    """The mean over shapes of the middle of a value over repetitions."""
    return fmean(middle([value(ms) for ms in repetitions]) for repetitions in shapes.values())


def _stages(ms: Mapping[str, float]) -> dict[str, float]:
    return {stage: value for stage, value in ms.items() if stage != WALL}


def _stage_names(repetitions: list[Repetition]) -> list[str]:
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


def _ttft_ms(shapes: Mapping[str, list[Mapping[str, float]]], before: Mapping[str, float]) -> float | None:
    """Preprocessing and the wall time of the prefill; None where preprocessing was not measured."""
    return before[PREPROCESS] + _over_shapes(shapes, lambda ms: ms[WALL]) if before else None


def _host_bound(arms: Iterable[Mapping[str, list[Mapping[str, float]]]]) -> bool:
    return any(
        is_host_bound(_over_shapes(shapes, lambda ms: ms[WALL]), _over_shapes(shapes, lambda ms: ms[TOTAL]))
        for shapes in arms
    )
