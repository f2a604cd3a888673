"""Overview: which method is best at this budget, how sure that is, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import streamlit as st

from harness.records.figures import REPORTED
from harness.records.records import FULL, RANDOM
from harness.report import csv_table, latex_tables
from harness.report.blocks import Block, Chart, File, Heading, Paragraph, Table
from harness.report.gather import Group, Line
from harness.report.ranking import HOW, ranked_blocks, unranked_blocks
from leaderboard import charts, filters
from leaderboard.data import Board
from leaderboard.render_streamlit import draw
from leaderboard.suites import SuiteGroup

OF_SUITE = (
    "RA is the mean over the benchmarks of accuracy over that of the model without pruning; brackets and bars are "
    "95 % intervals, clustered by image. Tinted rows are tied with the best. Beats random: the difference of mean RA "
    "over resampled sets of images, corrected by Holm. A method counts only if it has all benchmarks."
)


def show(board: Board) -> None:
    """The page, with its filters."""
    left, right = st.columns([3, 1])
    with left:
        _, group = filters.pick_group(board, suites=True)
    with right:
        budget = filters.pick_budget(group)
    draw(blocks(board, group, budget))


def blocks(board: Board, group: Group, budget: str | None) -> Iterator[Block]:
    """The ranking of a group at a budget, and what is not ranked, apart from it."""
    lines = group.at(budget)
    if not lines:
        yield Paragraph("No run of this group has finished at a budget yet: harness run --budget 50%", "note")
    else:
        yield from ranked_blocks(group, budget, OF_SUITE if isinstance(group, SuiteGroup) else HOW)
        yield File("CSV", "ranking.csv", csv_table([group]))
        yield File("LaTeX", "ranking.tex", latex_tables([group]))
        if len(group.budgets) > 1:
            yield Heading("RA over all budgets")
            yield Chart(_curves(group), f"ra-{len(group.budgets)}-budgets")
    if isinstance(group, SuiteGroup):
        yield from _benchmarks(group, lines)
    else:
        yield from unranked_blocks(group, [run for run in board.rows if run["status"] == REPORTED])
        yield Paragraph("Numbers that papers print stand on the page Published and are never mixed with these.", "soft")


def _benchmarks(group: SuiteGroup, lines: Sequence[Line]) -> Iterator[Block]:
    """Each benchmark of a suite by itself, and what is missing, by name."""
    names = list(group.choice.groups)
    if lines:
        yield Heading("RA by benchmark, %")
        told = sorted(lines, key=lambda line: -line.run["ra"])
        rows = [
            (line.name, *(_percent(group.by_benchmark[line.run["run_id"]][name]) for name in names)) for line in told
        ]
        yield Table(("method", *names), rows, "ra-by-benchmark")
    if group.lacking:
        yield Heading("Not averaged: benchmarks are missing")
        rows = [(name, budget, ", ".join(lacks)) for name, budget, lacks in group.lacking]
        yield Table(("method", "budget", "has no ranked run on"), rows, "lacking")
    if group.choice.missing:
        yield Paragraph(f"Of the suite, nothing was run on {', '.join(group.choice.missing)}.", "soft")


def _curves(group: Group) -> object:
    shown = [line for line in group.lines if line.ranked and line.run["method"] != FULL and line.run["ra"] is not None]
    names = sorted({line.name for line in shown}, key=lambda name: (not name.startswith(RANDOM), name))
    curves = [
        charts.Curve(name, own[0].run["method"], [charts.ra_point(line) for line in own])
        for name in names
        if (own := [line for line in shown if line.name == name])
    ]
    return charts.trade_off(curves, 100.0, "visual tokens a layer of the LLM (log)", "RA, %", log=True)


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 1)
