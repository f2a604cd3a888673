"""Repetitions put together again from stored rows: the times of one run of one arm, and the pairs that they form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.measure.clock import TOTAL
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
