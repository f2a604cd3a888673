"""The order in which a benchmark's samples are asked, so that the first N of them stand for all."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable

from harness.records.records import Sample

SEED = 20260  # of the order, never of a run: every method, control and seed answers the same first N


def stratified(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """All samples in a seeded order whose every beginning has the categories in their proportions.

    Rows that a metric judges together follow one another, so `--limit` cuts at most the last group. A sample without
    groups is shuffled on its own.
    """
    strata: dict[str, list[list[Sample]]] = defaultdict(list)
    for together in _groups(samples):
        strata[together[0].category].append(together)
    placed = []
    for category, groups in sorted(strata.items()):
        shuffle = random.Random(f"{SEED}:{category}")
        shuffle.shuffle(groups)
        offset = shuffle.random()
        placed += [((rank + offset) / len(groups), category, rank, group) for rank, group in enumerate(groups)]
    placed.sort(key=lambda one: one[:3])
    return tuple(sample for *_, group in placed for sample in group)


def _groups(samples: Iterable[Sample]) -> list[list[Sample]]:
    """Samples that share their first group; one that has none stands alone."""
    found: dict[object, list[Sample]] = {}
    for number, sample in enumerate(samples):
        key = next(iter(sample.groups.items()), number)
        found.setdefault((sample.category, key), []).append(sample)
    return list(found.values())
