"""Printed numbers as their papers lay them out: a table for each source and model, methods down, benchmarks across."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from harness.report.markup import Markup, join, tag
from leaderboard.palette import mark_of
from leaderboard.published import Printed
from leaderboard.ranking import symbol

UNPRUNED = "none"  # what a source's own baseline is called in the files
SILENT = "not stated"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def sources(numbers: Sequence[Printed], opened: int = 3) -> Markup:
    """One part for each source and model, in the order of the files; open where there are at most `opened`."""
    found: dict[tuple[str, str], list[Printed]] = {}
    for number in numbers:
        found.setdefault((number.source, number.model), []).append(number)
    shown = {"open": ""} if len(found) <= opened else {}
    return tag("div", *(_source(source, model, own, shown) for (source, model), own in found.items()), class_="board")


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
    """What is to be known of some numbers -> its letter."""
    words = dict.fromkeys(note for number in numbers if (note := _note(number)))
    return {note: _LETTERS[at % 26] * (1 + at // 26) for at, note in enumerate(words)}


def _note(number: Printed) -> str:
    hardware = f"Hardware: {number.hardware}." if number.hardware != SILENT else ""
    caveat = f"{number.caveat[:1].upper()}{number.caveat[1:]}" if number.caveat else ""
    return " ".join(part for part in (hardware, caveat) if part)


def _table(numbers: Sequence[Printed], notes: Mapping[str, str]) -> Markup:
    columns = list(dict.fromkeys(_column(number) for number in numbers))
    cells: dict[tuple[str, str], dict[str, list[Printed]]] = {}
    for number in numbers:
        cells.setdefault((number.method, number.budget), {}).setdefault(_column(number), []).append(number)
    head = tag(
        "tr",
        tag("th", "method", class_="words"),
        tag("th", "budget", class_="words"),
        *(tag("th", one) for one in columns),
    )
    body = [
        tag(
            "tr",
            tag("td", *_method(method), class_="words name"),
            tag("td", budget, class_="words"),
            *(tag("td", *_values(own.get(column, ()), notes)) for column in columns),
        )
        for (method, budget), own in cells.items()
    ]
    return tag("table", tag("thead", head), tag("tbody", *body))


def _column(number: Printed) -> str:
    """Benchmark, metric and unit; accuracy goes without saying."""
    metric = "" if number.metric == "accuracy" else f" {number.metric}"
    return f"{number.benchmark}{metric}, {number.unit}"


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
