"""Repetitions put together again from stored rows: the times of one run of one arm, and the pairs that they form."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import NormalDist

from harness.latency.clock import TOTAL
from harness.records.records import LatencyRow

WALL, PREPROCESS = "wall", "preprocess"
_TWICE = "session {!r} has pair {} of shape {!r} twice; give each session a name of its own"


@dataclass(frozen=True)
class Repetition:
    """One run of one arm. order: its place in the pair; control: of an A/A pair; ms: stage -> milliseconds."""

    session: str
    shape: str
    pair: int
    arm: str
    order: int
    control: bool
    ms: Mapping[str, float]


def repetitions_of(rows: Iterable[LatencyRow]) -> list[Repetition]:
    """Every repetition with a total. Raises ValueError when one has a stage twice."""
    times: dict[tuple[str, str, int, str, int, bool], dict[str, float]] = {}
    for row in rows:
        if row.stage == PREPROCESS:
            continue
        ms = times.setdefault((row.session, row.shape_key, row.pair, row.arm, row.order, row.control), {})
        if row.stage in ms:
            raise ValueError(_TWICE.format(row.session, row.pair, row.shape_key))
        ms[row.stage] = row.ms
    return [Repetition(*key, ms) for key, ms in times.items() if TOTAL in ms]


def complete_pairs(repetitions: list[Repetition], control: bool) -> list[tuple[Repetition, Repetition]]:
    """Pairs with both repetitions there: (base, pruned), or (first, second) of controls."""
    found: dict[tuple[str, str, int], list[Repetition]] = {}
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


def by_shape(repetitions: Iterable[Repetition]) -> dict[str, list[Mapping[str, float]]]:
    """Shape -> the times of its repetitions, in order."""
    shapes: dict[str, list[Mapping[str, float]]] = {}
    for repetition in repetitions:
        shapes.setdefault(repetition.shape, []).append(repetition.ms)
    return shapes


LEVEL = 0.95


def half_width_of_mean(values: Sequence[float]) -> float:
    """Student's interval of the mean of at least two values."""
    return students_t(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def half_width_of_medians(shapes: Sequence[Sequence[float]]) -> float | None:
    """Half width of the mean of the shapes' medians, from one session's pairs; None where a shape has one pair."""
    if min(len(pairs) for pairs in shapes) < 2:
        return None
    variances = [median_standard_error(pairs) ** 2 for pairs in shapes]
    if sum(variances) == 0:
        return 0.0
    freedom = sum(variances) ** 2 / sum(
        v**2 / (len(pairs) - 1) for v, pairs in zip(variances, shapes, strict=True)
    )  # Welch and Satterthwaite
    return students_t(freedom) * math.sqrt(sum(variances)) / len(shapes)


def median_standard_error(values: Sequence[float]) -> float:
    """The standard error of the median of n >= 2 values, whatever their distribution.

    The c-th lowest and c-th highest value bound the median with a confidence that the binomial tells exactly; their
    distance over the normal interval of that confidence is the error. c is such that it comes near 95 %.
    """
    n, ordered = len(values), sorted(values)
    c = max(1, round((n + 1) / 2 - 0.98 * math.sqrt(n)))
    outside = 2 * sum(comb(n, i) for i in range(c)) / 2**n
    return (ordered[n - c] - ordered[c - 1]) / (2 * NormalDist().inv_cdf(1 - outside / 2))


def students_t(freedom: float) -> float:
    """Student's t that holds the middle 95 %."""
    from scipy.stats import t

    return float(t.ppf(0.5 + LEVEL / 2, freedom))


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, linear between neighbours."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
