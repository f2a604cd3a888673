"""Printed numbers as their papers lay them out: a table for each source and model, methods down, benchmarks across."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from harness.records.errors import HarnessError
from harness.records.provenance import ROOT
from harness.report.blocks import Markup, join, tag
from harness.report.palette import mark_of
from harness.report.ranking import symbol

FOLDERS = (ROOT / "results" / "published", Path(__file__).resolve().parent / "published")  # checkout, wheel


@dataclass(frozen=True)
class Printed:
    """One printed number. value: in `unit`; budget, hardware: in the source's words, "not stated" where it is silent.

    second_hand: read in somebody else's text, not in the authors'. caveat: what to know before quoting it.
    """

    method: str
    model: str
    benchmark: str
    metric: str
    value: float
    unit: str
    budget: str
    hardware: str
    source: str
    second_hand: bool
    caveat: str
    file: str


def printed(folder: Path | None = None) -> list[Printed]:
    """All printed numbers, file by file. Raises HarnessError naming file and line where one does not fit."""
    found = folder or next((one for one in FOLDERS if one.is_dir()), None)
    return [number for file in sorted(found.glob("*.csv")) for number in _read(file)] if found else []


def _read(file: Path) -> Iterator[Printed]:
    names = [one.name for one in fields(Printed) if one.name != "file"]
    with file.open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(lines)
        if rows.fieldnames != names:
            raise HarnessError(f"{file}: expected the columns {', '.join(names)}, got {rows.fieldnames}")
        for row in rows:
            if row["second_hand"] not in ("yes", "no") or not all(row[name] for name in names if name != "caveat"):
                raise HarnessError(f"{file}, line {rows.line_num}: every cell but the caveat is needed")
            yield Printed(
                **{**row, "value": float(row["value"]), "second_hand": row["second_hand"] == "yes"}, file=file.stem
            )


UNPRUNED = "none"  # what a source's own baseline is called in the files


SILENT = "not stated"


FULL_ENOUGH = 0.6  # a table so full is left as it is


_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def sources(numbers: Sequence[Printed], opened: int = 4) -> Markup:
    """One part for each source and model, first-hand ones first; the first is open, or all if there are few."""
    found: dict[tuple[str, str], list[Printed]] = {}
    for number in numbers:
        found.setdefault((number.source, number.model), []).append(number)
    order = sorted(found.items(), key=lambda part: (all(one.second_hand for one in part[1]), -len(part[1])))
    parts = [
        _source(source, model, own, {"open": ""} if at == 0 or len(order) <= opened else {})
        for at, ((source, model), own) in enumerate(order)
    ]
    return tag("div", *parts, class_="board")


def with_baselines(chosen: Sequence[Printed], everything: Sequence[Printed]) -> list[Printed]:
    """The chosen numbers and what their sources print of the model without pruning in the same columns."""
    places = {(one.source, one.model, _column(one)) for one in chosen}
    kept = {id(one) for one in chosen}
    return [
        one
        for one in everything
        if id(one) in kept or (one.method == UNPRUNED and (one.source, one.model, _column(one)) in places)
    ]


def csv_of(numbers: Iterable[Printed]) -> str:
    """The numbers as CSV, one a line."""
    rows = [asdict(number) for number in numbers]
    written = io.StringIO()
    lines = csv.DictWriter(written, list(rows[0]) if rows else [], lineterminator="\n")
    lines.writeheader()
    lines.writerows(rows)
    return written.getvalue()


def _source(source: str, model: str, numbers: Sequence[Printed], shown: Mapping[str, str]) -> Markup:
    second = sum(number.second_hand for number in numbers)
    pill = tag("span", "second-hand" if second == len(numbers) else f"{second} second-hand", class_="pill unclear")
    count = f"{len(numbers)} number{'s' if len(numbers) > 1 else ''}"
    head = tag(
        "summary", tag("b", source), tag("span", f" {model} · {count} ", class_="soft"), pill if second else None
    )
    notes = _notes(numbers)
    told = [tag("p", tag("sup", letter), f" {words}", class_="soft") for words, letter in notes.items()]
    return tag("details", head, tag("div", _table(numbers, notes), class_="wide"), *told, **shown)


def _notes(numbers: Sequence[Printed]) -> dict[str, str]:
    """Caveat -> its letter."""
    words = dict.fromkeys(note for number in numbers if (note := _note(number)))
    return {note: _LETTERS[at % 26] * (1 + at // 26) for at, note in enumerate(words)}


def _note(number: Printed) -> str:
    hardware = f"Hardware: {number.hardware}." if number.hardware != SILENT else ""
    caveat = f"{number.caveat[:1].upper()}{number.caveat[1:]}" if number.caveat else ""
    return " ".join(part for part in (hardware, caveat) if part)


def _table(numbers: Sequence[Printed], notes: Mapping[str, str]) -> Markup:
    """Benchmarks across; down where that would leave more cells empty."""
    across = _filled(numbers, _row, _column)
    down = across < FULL_ENOUGH and _filled(numbers, _row_with_benchmark, _metric) > across
    row_of, column_of = (_row_with_benchmark, _metric) if down else (_row, _column)
    columns = list(dict.fromkeys(map(column_of, numbers)))
    cells: dict[tuple[str, ...], dict[str, list[Printed]]] = {}
    for number in numbers:
        cells.setdefault(row_of(number), {}).setdefault(column_of(number), []).append(number)
    names = ("method", "budget", "benchmark") if down else ("method", "budget")
    head = tag("tr", *(tag("th", name, class_="words") for name in names), *(tag("th", one) for one in columns))
    body = [
        tag(
            "tr",
            tag("td", *_method(row[0]), class_="words name"),
            *(tag("td", words, class_="words") for words in row[1:]),
            *(tag("td", *_values(own.get(column, ()), notes)) for column in columns),
        )
        for row, own in cells.items()
    ]
    return tag("table", tag("thead", head), tag("tbody", *body))


def _filled(
    numbers: Sequence[Printed], row_of: Callable[[Printed], object], column_of: Callable[[Printed], object]
) -> float:
    """The share of a table's cells that would hold a number."""
    return len(numbers) / (len(set(map(row_of, numbers))) * len(set(map(column_of, numbers))))


def _row(number: Printed) -> tuple[str, ...]:
    return number.method, number.budget


def _row_with_benchmark(number: Printed) -> tuple[str, ...]:
    return number.method, number.budget, number.benchmark


def _metric(number: Printed) -> str:
    return f"{number.metric}, {number.unit}"


def _column(number: Printed) -> str:
    """Benchmark, metric and unit; accuracy goes without saying."""
    return (
        f"{number.benchmark}, {number.unit}" if number.metric == "accuracy" else f"{number.benchmark} {_metric(number)}"
    )


def _method(method: str) -> list[object]:
    return ["no pruning"] if method == UNPRUNED else [symbol(mark_of(method)), " ", tag("span", method)]


def _values(numbers: Sequence[Printed], notes: Mapping[str, str]) -> list[object]:
    """The numbers of a cell, each with the letter of its note; several where a source prints several."""
    if not numbers:
        return ["–"]
    parts = []
    for at, number in enumerate(numbers):
        note = _note(number)
        parts.append(join(" / " if at else "", f"{number.value:g}", tag("sup", notes[note]) if note else None))
    return parts
