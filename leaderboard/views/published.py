"""Published: what papers print, with sources and caveats, apart from everything that was run here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median

import streamlit as st

from harness.records.published import NOT_STATED, PrintedCell, Printing, printings
from harness.report.blocks import Block, File, Heading, Html, Paragraph, Table
from leaderboard import filters
from leaderboard.agreement import CONTESTED, DUELS, Spread, consensus, spreads
from leaderboard.data import Board
from leaderboard.papers import RUNS, csv_of, sources, with_baselines
from leaderboard.render_streamlit import draw

ALL = "all"
HOW = (
    "Copied from papers, with their conditions as far as they are told. Budgets, benchmarks, scoring and hardware "
    "differ from source to source: compare nothing here across sources, and nothing with the ranking. Second-hand: "
    "read in somebody else's text, or copied by the source. Where no hardware is named, the source is silent."
)
SPREAD = (
    "Cells (model, method, benchmark, metric, budget) that two sources or more print, of sources whose unpruned row "
    "is the usual one. Points, as printed."
)
CONTEST = (
    f"Cells whose printings lie {CONTESTED['%']:g} % points or {CONTESTED['points']:g} points of MME apart, or more. "
    "All printings stand side by side; none is chosen. Equal copies of one run are one piece of evidence."
)
DUEL = (
    "Two methods in one table are a duel, over the columns that both have, by the mean ratio to the table's unpruned "
    f"row. Declared re-runs and rows of unclear origin count; a table's own method and copies do not. At least {DUELS} "
    "duels. A share says in how many tables, not by how much; no interval is printed by anybody."
)


def show(board: Board) -> None:
    """The page, with its filters."""
    numbers = printings()
    chosen = {}
    for column, key in zip(st.columns([2, 2, 2, 3]), _FILTERS, strict=True):
        with column:
            options = [ALL, *sorted({_FILTERS[key](number) for number in numbers}, key=str.lower)]
            chosen[key] = filters.pick(key.capitalize(), f"paper-{key}", options)
    fitting = [number for number in numbers if all(v in (ALL, _FILTERS[k](number)) for k, v in chosen.items())]
    draw(blocks(with_baselines(fitting, numbers), numbers))


_FILTERS = {
    "method": lambda number: number.method,
    "model": lambda number: number.model,
    "benchmark": lambda number: number.benchmark,
    "source": lambda number: number.source.name,
}


def blocks(numbers: Sequence[Printing], everything: Sequence[Printing]) -> Iterator[Block]:
    """How the chosen numbers agree with all others of their cells; then the numbers, source by source."""
    yield Paragraph(HOW, "note")
    if not numbers:
        yield Paragraph("No paper prints such a number.", "soft")
        return
    yield Paragraph(f"{len(numbers)} numbers from {len({number.source for number in numbers})} sources.", "soft")
    wanted = {id(number) for number in numbers}
    spread = [one for one in spreads(everything) if any(id(number) in wanted for number in one.cell.printings)]
    if spread:
        yield Heading("Spread of printings")
        yield Paragraph(SPREAD, "soft")
        yield _spread_table(spread)
    contested = [one for one in spread if one.contested]
    if contested:
        yield Heading("Contested cells")
        yield Paragraph(CONTEST, "soft")
        yield _contested_table(contested)
    yield from _consensus({number.model for number in numbers}, everything)
    yield Heading("Source by source")
    yield Html(sources(numbers))
    yield File("CSV", "published.csv", csv_of(numbers))


def _spread_table(spread: Iterable[Spread]) -> Table:
    """One row for each model and column of its benchmarks."""
    gathered: dict[tuple[str, ...], list[Spread]] = {}
    for one in spread:
        gathered.setdefault((one.cell.model, _column(one.cell), one.cell.unit), []).append(one)
    names = ("model", "benchmark", "unit", "cells", "median spread", "largest", "of", "own runs and re-runs: cells")
    rows = []
    for key, own in sorted(gathered.items()):
        widest = max(own, key=lambda one: one.width)
        ran = [one.own[1] - one.own[0] for one in own if one.own]
        largest = f"{widest.cell.method}, {widest.cell.budget}"
        middle = round(median(ran), 2) if ran else None
        widths = round(median(one.width for one in own), 2), round(widest.width, 2)
        rows.append((*key, len(own), *widths, largest, len(ran), middle))
    return Table((*names, "their median spread"), rows, "published-spread")


def _contested_table(contested: Iterable[Spread]) -> Table:
    names = ("model", "method", "budget", "benchmark", "unit", "spread", "sources", "printings")
    rows = [
        (
            one.cell.model,
            one.cell.method,
            one.cell.budget,
            _column(one.cell),
            one.cell.unit,
            round(one.width, 2),
            len({number.source for number in one.cell.printings}),
            side_by_side(one.cell),
        )
        for one in contested
    ]
    return Table(names, rows, "published-contested")


def side_by_side(cell: PrintedCell) -> str:
    """All printings of a cell by value, with kind of run, sources and caveat."""
    gathered: dict[tuple[float, str, str], list[str]] = {}
    for one in sorted(cell.printings, key=lambda one: (one.value, one.source.name)):
        gathered.setdefault((one.value, RUNS[one.run_kind], one.caveat), []).append(one.source.name.partition(",")[0])
    parts = []
    for (value, run, caveat), names in gathered.items():
        words = f"{value:g} {run}: {', '.join(dict.fromkeys(names))}"
        parts.append(f"{words} ({caveat})" if caveat else words)
    return "; ".join(parts)


def _consensus(models: set[str], everything: Sequence[Printing]) -> Iterator[Block]:
    found = {key: places for key, places in consensus(everything).items() if key[0] in models}
    if not found:
        return
    yield Heading("Consensus per budget")
    yield Paragraph(DUEL, "soft")
    rows = [
        (model, budget, at, one.method, round(100 * one.beaten), one.opponents, one.won, one.duels)
        for (model, budget), places in sorted(found.items())
        for at, one in enumerate(places, 1)
    ]
    names = ("model", "budget", "place", "method", "opponents outdone, %", "opponents", "duels won", "duels")
    yield Table(names, rows, "published-consensus")


def _column(cell: PrintedCell) -> str:
    """Benchmark, split and metric."""
    split = "" if cell.split == NOT_STATED else f" {cell.split}"
    return f"{cell.benchmark}{split}, {cell.metric}"
