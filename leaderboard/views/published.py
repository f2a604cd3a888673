"""Published: what papers print, with sources and caveats, apart from everything that was run here."""

from __future__ import annotations

from collections.abc import Iterator

import streamlit as st

from harness.report.blocks import Block, File, Html, Paragraph
from leaderboard import filters
from leaderboard.data import Board
from leaderboard.papers import Printed, csv_of, printed, sources, with_baselines
from leaderboard.render_streamlit import draw

ALL = "all"
HOW = (
    "Copied from papers, with their conditions as far as they are told. Budgets, benchmarks, scoring and hardware "
    "differ from source to source: compare nothing here across sources, and nothing with the ranking. Second-hand: "
    "read in somebody else's text. Where no hardware is named, the source is silent."
)
FILTERS = ("method", "model", "benchmark", "source")


def show(board: Board) -> None:
    """The page, with its filters."""
    numbers = printed()
    chosen = {}
    for column, key in zip(st.columns([2, 2, 2, 3]), FILTERS, strict=True):
        with column:
            options = [ALL, *sorted({getattr(number, key) for number in numbers}, key=str.lower)]
            chosen[key] = filters.pick(key.capitalize(), f"paper-{key}", options)
    fitting = [number for number in numbers if all(v in (ALL, getattr(number, k)) for k, v in chosen.items())]
    draw(blocks(with_baselines(fitting, numbers)))


def blocks(numbers: list[Printed]) -> Iterator[Block]:
    """The printed numbers, source by source."""
    yield Paragraph(HOW, "note")
    if not numbers:
        yield Paragraph("No paper prints such a number.", "soft")
        return
    yield Paragraph(f"{len(numbers)} numbers from {len({number.source for number in numbers})} sources.", "soft")
    yield Html(sources(numbers))
    yield File("CSV", "published.csv", csv_of(numbers))
