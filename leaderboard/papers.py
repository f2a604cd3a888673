"""Published numbers as their sources lay them out: table by table, methods down, benchmarks across."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.records.published import COLUMNS, NOT_STATED, UNPRUNED, Printing, Source
from harness.report.blocks import Markup, join, tag
from harness.report.palette import mark_of
from harness.report.ranking import symbol

FULL_ENOUGH = 0.6  # a table so full is left as it is
RUNS = {"own": "own", "rerun": "re-run", "copy": "copy", "unclear": "unclear", "baseline": ""}
COUNTED = {
    "unpruned": "",
    "layer_average": "(layer average)",
    "interface_kept": "(at the interface)",
    "kept_after_layer": "(after a layer)",
    "native": "(native)",
    "unclear": "(of what: unclear)",
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def sources(numbers: Sequence[Printing], opened: int = 4) -> Markup:
    """One part for each table of a source and model, first-hand ones first; the first is open, or all if few."""
    found: dict[tuple[Source, str, str], list[Printing]] = {}
    for number in numbers:
        found.setdefault((number.source, number.table, number.model), []).append(number)
    order = sorted(found.values(), key=lambda own: (all(one.second_hand for one in own), -len(own)))
    parts = [_source(own, {"open": ""} if at == 0 or len(order) <= opened else {}) for at, own in enumerate(order)]
    return tag("div", *parts, class_="board")


def with_baselines(chosen: Sequence[Printing], everything: Sequence[Printing]) -> list[Printing]:
    """The chosen numbers and what the same tables print of the unpruned model in the same columns."""
    places = {_place(one) for one in chosen}
    kept = {id(one) for one in chosen}
    return [one for one in everything if id(one) in kept or (one.method == UNPRUNED and _place(one) in places)]


def _place(one: Printing) -> tuple[object, ...]:
    return one.source, one.table, one.model, _column(one)


def csv_of(numbers: Iterable[Printing]) -> str:
    """The numbers as CSV, one a line, in the form of results/published/ with the address of each source."""
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow([*COLUMNS, "address"])
    for one in numbers:
        cells = {"source": one.source.name, "second_hand": "yes" if one.second_hand else "no"}
        lines.writerow([*(cells.get(name, getattr(one, name)) for name in COLUMNS), one.source.address])
    return written.getvalue()


def _source(numbers: Sequence[Printing], shown: Mapping[str, str]) -> Markup:
    first = numbers[0]
    second = sum(number.second_hand for number in numbers)
    pill = tag("span", "second-hand" if second == len(numbers) else f"{second} second-hand", class_="pill unclear")
    count = f"{len(numbers)} number{'s' if len(numbers) > 1 else ''}"
    table = "" if first.table == NOT_STATED else f" {first.table} ·"
    about = tag("span", f"{table} {first.model} · {count} ", class_="soft")
    head = tag("summary", tag("b", first.source.name), about, pill if second else None)
    notes = _notes(numbers)
    told = [tag("p", tag("sup", letter), f" {words}", class_="soft") for words, letter in notes.items()]
    return tag("details", head, _read(first.source), tag("div", _table(numbers, notes), class_="wide"), *told, **shown)


def _read(source: Source) -> Markup:
    """Title, address and how it was read."""
    linked = source.address.startswith("https://")
    address = tag("a", source.address, href=source.address) if linked else f"address {source.address}"
    return tag("p", f"{source.title}; ", address, f". Read: {source.read}.", class_="soft")


def _notes(numbers: Sequence[Printing]) -> dict[str, str]:
    """What is to be known of some numbers -> its letter."""
    words = dict.fromkeys(note for number in numbers if (note := _note(number)))
    return {note: _LETTERS[at % 26] * (1 + at // 26) for at, note in enumerate(words)}


def _note(number: Printing) -> str:
    hardware = f"Hardware: {number.hardware}." if number.hardware != NOT_STATED else ""
    caveat = f"{number.caveat[:1].upper()}{number.caveat[1:]}" if number.caveat else ""
    return " ".join(part for part in (hardware, caveat) if part)


def _table(numbers: Sequence[Printing], notes: Mapping[str, str]) -> Markup:
    """Benchmarks across; down where that would leave more cells empty."""
    across = _filled(numbers, _row, _column)
    down = across < FULL_ENOUGH and _filled(numbers, _row_with_benchmark, _metric) > across
    row_of, column_of = (_row_with_benchmark, _metric) if down else (_row, _column)
    columns = list(dict.fromkeys(map(column_of, numbers)))
    cells: dict[tuple[str, ...], dict[str, list[Printing]]] = {}
    for number in numbers:
        cells.setdefault(row_of(number), {}).setdefault(column_of(number), []).append(number)
    names = ("method", "run", "budget", *(("benchmark",) if down else ()))
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
    numbers: Sequence[Printing], row_of: Callable[[Printing], object], column_of: Callable[[Printing], object]
) -> float:
    """The share of a table's cells that would hold a number."""
    return len(numbers) / (len(set(map(row_of, numbers))) * len(set(map(column_of, numbers))))


def _row(number: Printing) -> tuple[str, ...]:
    return number.method, _run(number), budget_of(number)


def _row_with_benchmark(number: Printing) -> tuple[str, ...]:
    return *_row(number), number.benchmark


def _run(number: Printing) -> str:
    """Kind of run, for a copy with its original."""
    known = number.copied_from not in ("", NOT_STATED)
    return f"copy of {number.copied_from.partition(',')[0]}" if known else RUNS[number.run_kind]


def budget_of(number: Printing) -> str:
    """The budget in the source's words, and what it counts."""
    counted = COUNTED[number.budget_kind]
    return f"{number.budget} {counted}" if counted else number.budget


def _metric(number: Printing) -> str:
    return f"{number.metric}, {number.unit}"


def _column(number: Printing) -> str:
    """Benchmark, split, metric and unit; accuracy goes without saying."""
    benchmark = number.benchmark if number.split == NOT_STATED else f"{number.benchmark} {number.split}"
    return f"{benchmark}, {number.unit}" if number.metric == "accuracy" else f"{benchmark} {_metric(number)}"


def _method(method: str) -> list[object]:
    return ["no pruning"] if method == UNPRUNED else [symbol(mark_of(method)), " ", tag("span", method)]


def _values(numbers: Sequence[Printing], notes: Mapping[str, str]) -> list[object]:
    """The numbers of a cell, each with the letter of its note; several where a source prints several."""
    if not numbers:
        return ["–"]
    parts = []
    for at, number in enumerate(numbers):
        note = _note(number)
        parts.append(join(" / " if at else "", f"{number.value:g}", tag("sup", notes[note]) if note else None))
    return parts
