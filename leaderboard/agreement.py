"""How far published numbers agree: the spread of a cell's printings, contested cells, and who is ahead of whom.

Only tables that start alike are set side by side: a source whose own unpruned row differs has another prompt, split or
toolkit. The consensus is a count of duels, not a mean of means: tables have different columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median

from harness.records.published import MEAN, UNPRUNED, PrintedCell, Printing, cells

LIKE = 0.01  # two unpruned rows are alike within this share of their value
CONTESTED = {"%": 3.0, "points": 100.0}  # a spread from here on; points: MME's
COLUMNS = 3  # a duel needs as many in common
TIE = 0.0005  # of a ratio: numbers are printed to a tenth of a point
DUELS = 6  # a place in the consensus needs as many

_Column = tuple[str, str, str, str]  # benchmark, metric, split, unit
_Unpruned = dict[tuple[str, str, str], dict[_Column, float]]  # (source, table, model) -> column -> value


@dataclass(frozen=True)
class Spread:
    """The printings of one cell whose sources start alike.

    low, high: smallest and largest value, in the cell's unit; own: the same of own runs and re-runs, None below two.
    """

    cell: PrintedCell
    low: float
    high: float
    own: tuple[float, float] | None

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def contested(self) -> bool:
        return self.width >= CONTESTED.get(self.cell.unit, float("inf")) - 1e-9


@dataclass(frozen=True)
class Standing:
    """A method's place in the consensus at one budget.

    beaten: share of its opponents, 0 to 1; won, duels: counts over tables, a tie is half a win.
    """

    method: str
    beaten: float
    opponents: int
    won: float
    duels: int


def spreads(numbers: Sequence[Printing]) -> list[Spread]:
    """Cells that two sources or more print, widest first within their unit."""
    unpruned = _unpruned(numbers)
    usual = _usual(unpruned)
    found = [one for cell in cells(numbers) if (one := _spread(cell, unpruned, usual))]
    return sorted(found, key=lambda one: (one.cell.unit, -one.width))


def consensus(numbers: Sequence[Printing]) -> dict[tuple[str, str], list[Standing]]:
    """(model, budget) -> methods by the share of opponents that they beat, over declared re-runs and unclear rows.

    A duel: two methods in one table, by the mean over their common columns of the ratio to the table's unpruned row.
    An opponent is beaten where more tables say so than deny it.
    """
    unpruned = _unpruned(numbers)
    tables: dict[tuple[str, str], dict[tuple[str, str], dict[str, dict[_Column, float]]]] = {}
    for one in numbers:
        start = unpruned.get((one.source.name, one.table, one.model), {}).get(_column(one))
        if one.run_kind in ("rerun", "unclear") and one.method != UNPRUNED and start and one.benchmark != MEAN:
            table = tables.setdefault((one.model, one.budget), {}).setdefault((one.source.name, one.table), {})
            table.setdefault(one.method, {})[_column(one)] = one.value / start
    ranked = {key: _ranked(own.values()) for key, own in tables.items() if len(own) > 1}  # one table is no consensus
    return {key: places for key, places in ranked.items() if len(places) > 1}


def _unpruned(numbers: Iterable[Printing]) -> _Unpruned:
    """The unpruned row of every table that has one."""
    found: _Unpruned = {}
    for one in numbers:
        if one.run_kind == "baseline":
            found.setdefault((one.source.name, one.table, one.model), {})[_column(one)] = one.value
    return found


def _column(one: Printing) -> _Column:
    return one.benchmark, one.metric, one.split, one.unit


def _usual(unpruned: _Unpruned) -> dict[tuple[str, _Column], float]:
    """(model, column) -> median of the unpruned rows of all tables."""
    found: dict[tuple[str, _Column], list[float]] = {}
    for (_, _, model), row in unpruned.items():
        for column, value in row.items():
            found.setdefault((model, column), []).append(value)
    return {key: median(values) for key, values in found.items()}


def _starts_alike(one: Printing, unpruned: _Unpruned, usual: Mapping[tuple[str, _Column], float]) -> bool:
    """True if its table's unpruned row is the usual one, or was not read."""
    start = unpruned.get((one.source.name, one.table, one.model), {}).get(_column(one))
    expected = usual.get((one.model, _column(one)))
    return start is None or expected is None or abs(start - expected) <= LIKE * expected


def _spread(cell: PrintedCell, unpruned: _Unpruned, usual: Mapping[tuple[str, _Column], float]) -> Spread | None:
    if cell.method == UNPRUNED or cell.benchmark == MEAN or cell.unit not in CONTESTED:
        return None
    alike = [one for one in cell.printings if _starts_alike(one, unpruned, usual)]
    if len({one.source.name for one in alike}) < 2:
        return None
    own = [one.value for one in alike if one.run_kind in ("own", "rerun")]
    values = [one.value for one in alike]
    return Spread(cell, min(values), max(values), (min(own), max(own)) if len(own) > 1 else None)


def _ranked(tables: Iterable[Mapping[str, Mapping[_Column, float]]]) -> list[Standing]:
    balance: dict[tuple[str, str], int] = {}  # (a, b) -> tables that put a ahead minus those that put b ahead
    won: dict[str, float] = {}
    duels: dict[str, int] = {}
    for table in tables:
        for a, b in combinations(table, 2):
            common = table[a].keys() & table[b].keys()
            if len(common) < COLUMNS:
                continue
            ahead = fmean(table[a][one] for one in common) - fmean(table[b][one] for one in common)
            sign = (ahead > TIE) - (ahead < -TIE)
            balance[a, b] = balance.get((a, b), 0) + sign
            balance[b, a] = balance.get((b, a), 0) - sign
            for method, share in ((a, (1 + sign) / 2), (b, (1 - sign) / 2)):
                won[method] = won.get(method, 0.0) + share
                duels[method] = duels.get(method, 0) + 1
    places = []
    for method, count in duels.items():
        against = [sign for (one, _), sign in balance.items() if one == method]
        beaten = fmean((sign > 0) + 0.5 * (sign == 0) for sign in against)
        places.append(Standing(method, beaten, len(against), won[method], count))
    enough = [place for place in places if place.duels >= DUELS]
    return sorted(enough, key=lambda place: (-place.beaten, -place.won / place.duels, place.method))
