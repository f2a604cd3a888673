"""Published: what papers print, with sources and caveats, apart from everything that was run here."""

from __future__ import annotations

from collections.abc import Iterator

import streamlit as st

from leaderboard import filters
from leaderboard.blocks import Block, Table, Words
from leaderboard.data import Board
from leaderboard.drawing import draw
from leaderboard.published import Printed, printed

ALL = "all"
HOW = (
    "Copied from papers, with their conditions as far as they are told. Budgets, benchmarks, scoring and hardware "
    "differ from source to source: compare nothing here across sources, and nothing with the ranking. Second-hand: "
    "read in somebody else's text."
)


def show(board: Board) -> None:
    """The page, with its filters."""
    numbers = printed()
    columns = st.columns(3)
    chosen = {}
    for column, key in zip(columns, ("method", "model", "benchmark"), strict=True):
        with column:
            options = [ALL, *sorted({getattr(number, key) for number in numbers})]
            chosen[key] = filters.pick(key.capitalize(), f"paper-{key}", options)
    draw(blocks([number for number in numbers if all(v in (ALL, getattr(number, k)) for k, v in chosen.items())]))


def blocks(numbers: list[Printed]) -> Iterator[Block]:
    """The printed numbers as one table."""
    yield Words(HOW, "note")
    if not numbers:
        yield Words("No paper prints such a number.", "soft")
        return
    columns = ("method", "model", "benchmark", "metric", "value", "unit", "budget", "second-hand", "source", "hardware")
    rows = [
        (
            *(number.method, number.model, number.benchmark, number.metric, number.value, number.unit, number.budget),
            *(number.second_hand, number.source, number.hardware, number.caveat),
        )
        for number in numbers
    ]
    yield Table((*columns, "caveat"), rows, "published")
    yield Words(f"{len(rows)} numbers from {len({number.source for number in numbers})} sources.", "soft")
