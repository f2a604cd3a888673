"""Published numbers with their sources, from the CSV files that a checkout and a wheel carry (results/published/).

A printing is one number as one source prints it. A cell holds every printing of one method, model, benchmark, metric,
split and budget: printings that contradict one another stand side by side, and nothing here chooses among them.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from harness.records.errors import HarnessError
from harness.records.provenance import ROOT

FOLDERS = (ROOT / "results" / "published", ROOT / "leaderboard" / "published")  # checkout, wheel
SOURCES = "sources.csv"
UNPRUNED = "none"  # the method of a source's own unpruned row
NOT_STATED = "not stated"  # where the source is silent
MEAN = "mean of the table"  # the benchmark of a mean over the columns of one table

RunKind = Literal["own", "rerun", "copy", "unclear", "baseline"]
BudgetKind = Literal["unpruned", "layer_average", "interface_kept", "kept_after_layer", "native", "unclear"]
_CHOICES = {"run_kind": get_args(RunKind), "budget_kind": get_args(BudgetKind), "second_hand": ("yes", "no")}
_MAY_BE_EMPTY = ("copied_from", "caveat")
_VALUE = re.compile(r"(\d+(?:\.\d+)?) (tokens|%)")


@dataclass(frozen=True)
class Source:
    """Where numbers were read. address: "not found" where none was; read: which text was read, and how."""

    name: str
    address: str
    title: str
    read: str


@dataclass(frozen=True)
class Printing:
    """One number as one source prints it.

    split: of the benchmark, "not stated" where the source is silent. value: in `unit`.
    budget: in the source's words; budget_kind: what is counted, "unclear" where the source does not say;
    budget_value: tokens (an int) or a share of the visual tokens (a float in [0, 1]), None for other words.
    where: table, line or section of the source. run_kind: "own" the source's own method, "rerun" another method that
    the source says it ran, "copy" taken from `copied_from`, "unclear" not said, "baseline" the source's unpruned row.
    second_hand: read in somebody else's text, or a copy. caveat: what to know before quoting it.
    """

    method: str
    model: str
    benchmark: str
    metric: str
    split: str
    value: float
    unit: str
    budget_kind: BudgetKind
    budget: str
    hardware: str
    source: Source
    where: str
    run_kind: RunKind
    copied_from: str
    second_hand: bool
    caveat: str
    file: str

    @property
    def budget_value(self) -> int | float | None:
        found = _VALUE.fullmatch(self.budget)
        if found is None:
            return None
        return int(found[1]) if found[2] == "tokens" else float(found[1]) / 100

    @property
    def table(self) -> str:
        """The table of the source that holds it: `where` without the line."""
        return re.sub(r",?\s*\blines? [\d-]+$", "", self.where)


@dataclass(frozen=True)
class PrintedCell:
    """All printings of one cell. budget: in the words that they share; its kind stands in each printing."""

    method: str
    model: str
    benchmark: str
    metric: str
    split: str
    unit: str
    budget: str
    printings: tuple[Printing, ...]

    @property
    def spread(self) -> float:
        """Largest minus smallest value, in `unit`; 0 for a single printing."""
        values = [one.value for one in self.printings]
        return max(values) - min(values)


COLUMNS = tuple(one.name for one in fields(Printing) if one.name != "file")
_CELL = tuple(one.name for one in fields(PrintedCell) if one.name != "printings")


def printings(folder: Path | None = None) -> tuple[Printing, ...]:
    """Every published number, file by file; () where no folder is at hand.

    Raises HarnessError naming file and line where a row does not fit, or its source is not in sources.csv.
    """
    found = folder or next((one for one in FOLDERS if one.is_dir()), None)
    return _printings(found) if found else ()


def cells(numbers: Iterable[Printing]) -> list[PrintedCell]:
    """The printings, gathered by cell in the order in which cells first appear."""
    gathered: dict[tuple[str, ...], list[Printing]] = {}
    for number in numbers:
        gathered.setdefault(tuple(getattr(number, name) for name in _CELL), []).append(number)
    return [PrintedCell(*key, printings=tuple(own)) for key, own in gathered.items()]


@cache
def _printings(folder: Path) -> tuple[Printing, ...]:
    known = {row["name"]: Source(**row) for row in _rows(folder / SOURCES, tuple(one.name for one in fields(Source)))}
    files = sorted(file for file in folder.glob("*.csv") if file.name != SOURCES)
    return tuple(number for file in files for number in _read(file, known))


def _read(file: Path, known: dict[str, Source]) -> Iterator[Printing]:
    for at, row in enumerate(_rows(file, COLUMNS, _MAY_BE_EMPTY), 2):
        for name, choices in _CHOICES.items():
            if row[name] not in choices:
                raise HarnessError(f"{file}, line {at}: {name} is one of {', '.join(choices)}, got {row[name]!r}")
        if row["source"] not in known:
            raise HarnessError(f"{file}, line {at}: {row['source']!r} has no line in {SOURCES}; add it there")
        if (row["run_kind"] == "copy") != bool(row["copied_from"]):
            raise HarnessError(f"{file}, line {at}: a copy, and nothing else, names its original in copied_from")
        try:
            value = float(row["value"])
        except ValueError:
            raise HarnessError(f"{file}, line {at}: the value is a number, got {row['value']!r}") from None
        yield Printing(
            **{**row, "value": value, "source": known[row["source"]], "second_hand": row["second_hand"] == "yes"},
            file=file.stem,
        )


def _rows(file: Path, columns: tuple[str, ...], may_be_empty: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
    """Lines of a CSV file with exactly these columns, each filled unless it may be empty."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(lines)
        if tuple(rows.fieldnames or ()) != columns:
            raise HarnessError(f"{file}: expected the columns {', '.join(columns)}, got {rows.fieldnames}")
        for row in rows:
            empty = [name for name in columns if not row[name] and name not in may_be_empty]
            if empty:
                raise HarnessError(f"{file}, line {rows.line_num}: {', '.join(empty)} missing; write {NOT_STATED!r}")
            if None in row:
                raise HarnessError(f"{file}, line {rows.line_num}: more cells than columns; quote what holds a comma")
            yield row
