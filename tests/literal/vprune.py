"""V-PRUNE's rules as described, one unit, pair and group at a time, in plain Python numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

Rho = Callable[[int, int], float]


def rho_of(pixels: Tensor, t_chi: float, tau: float, combine: str) -> Rho:
    """Pair scores in threshold units, luma histograms of 8 bins, centred pixels. pixels: (n, 3, u, u)."""
    histograms, vectors = [], []
    for unit in pixels.double():
        side = unit.shape[-1]
        histogram = [0.0] * 8
        for y in range(side):
            for x in range(side):
                red, green, blue = (float(unit[c, y, x]) for c in range(3))
                luma = 0.299 * red + 0.587 * green + 0.114 * blue
                histogram[min(max(math.floor(8 * luma), 0), 7)] += 196 / side**2
        histograms.append(histogram)
        vector = [float(value) - 0.5 for value in unit.flatten()]
        length = math.sqrt(sum(value**2 for value in vector))
        vectors.append([value / length for value in vector] if length >= 1e-6 else None)

    def rho(i: int, j: int) -> float:
        d = sum((a - b) ** 2 / (a + b) for a, b in zip(histograms[i], histograms[j], strict=True) if a + b > 0)
        one, other = vectors[i], vectors[j]
        if one is None or other is None:
            c = 1.0 if one is other else 0.0
        else:
            c = sum(a * b for a, b in zip(one, other, strict=True))
        chi, turn = d / t_chi, (1 - c) / (1 - tau)
        return {"and": max(chi, turn), "or": min(chi, turn), "chi_only": chi, "cos_only": turn}[combine]

    return rho


def threshold_walk(rho: Rho, rows: int, columns: int, group: int) -> list[int]:
    """4a: kept units, ascending."""
    kept = []
    for block in _blocks([[r * columns + c for c in range(columns)] for r in range(rows)], group):
        mine: list[int] = []
        for unit in block:
            if not any(rho(unit, earlier) <= 1 for earlier in mine):
                mine.append(unit)
        kept += mine
    return sorted(kept)


def removal_order(rho: Rho, rows: int, columns: int, group: int) -> list[int]:
    """4b: the n - 1 removals, first removed first."""
    cells = [[r * columns + c for c in range(columns)] for r in range(rows)]
    removed = []
    while len(cells) * len(cells[0]) > 1:
        events: list[tuple[float, int]] = []
        survivors = []
        for block in _blocks(cells, group):
            members = list(block)
            cost = 0.0
            while len(members) >= 2:
                pairs = [(a, b) for i, a in enumerate(members) for b in members[i + 1 :]]
                a, b = min(pairs, key=lambda pair: (rho(*pair), pair))
                cost = max(cost, rho(a, b))
                members.remove(b)
                events.append((cost, b))
            survivors.append(members[0])
        removed += [unit for _, unit in sorted(events, key=lambda event: event[0])]
        width = math.ceil(len(cells[0]) / group)
        cells = [survivors[i : i + width] for i in range(0, len(survivors), width)]
    return removed


def _blocks(cells: list[list[int]], group: int) -> list[list[int]]:
    return [
        [
            cells[r][c]
            for r in range(top, min(top + group, len(cells)))
            for c in range(at, min(at + group, len(cells[0])))
        ]
        for top in range(0, len(cells), group)
        for at in range(0, len(cells[0]), group)
    ]
