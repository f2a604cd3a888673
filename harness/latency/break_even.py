"""From which number of visual tokens on pruning pays: its cost against what it saves, shape by shape.

Selection often grows with the square of the tokens and the saving with their number, or the other way round; a single
ratio over all shapes hides where they cross.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from harness.latency.clock import TOTAL
from harness.records.records import LatencyRow


@dataclass(frozen=True)
class BreakEven:
    """What pruning costs and saves on one shape of n visual tokens, medians over its pairs.

    select_ms: all work of the pruner. saved_ms: the base's total minus what the pruned arm takes besides selection.
    """

    shape_key: str
    n: int
    select_ms: float
    saved_ms: float

    @property
    def pays(self) -> bool:
        """Whether the selection costs less than it saves."""
        return self.select_ms < self.saved_ms


def break_even(rows: Iterable[LatencyRow]) -> list[BreakEven]:
    """Cost and saving of each shape, fewest tokens first; shapes without both arms are left out."""
    times: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if not row.control and row.stage in ("select", TOTAL):
            times[row.shape_key][row.arm, row.stage].append(row.ms)
    found = []
    for shape_key, of in times.items():
        if of["base", TOTAL] and of["pruned", TOTAL]:
            select = median(of["pruned", "select"] or [0.0])
            saved = median(of["base", TOTAL]) - (median(of["pruned", TOTAL]) - select)
            found.append(BreakEven(shape_key, visual_tokens(shape_key), select, saved))
    return sorted(found, key=lambda one: (one.n, one.shape_key))


def visual_tokens(shape_key: str) -> int:
    """n of a shape key such as "8x8,4x6+21" or "8x8+21#3": the units of all its images."""
    grids = shape_key.partition("+")[0].split(",")
    return sum(math.prod(int(side) for side in grid.split("x")) for grid in grids)
