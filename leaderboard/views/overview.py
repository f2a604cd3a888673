"""Overview: which method is best at this budget, how sure that is, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import streamlit as st

from harness.records.figures import FAILED_BUDGET, OK, REPORTED
from harness.report import csv_table, latex_tables
from harness.report.gather import FULL, RANDOM, Group, Line
from harness.report.page import STATUS_WORDS
from harness.store.lookup import Row, name_of
from harness.submissions import SELF_REPORTED
from leaderboard import charts, filters
from leaderboard.blocks import Block, Chart, File, Heading, Html, Table, Words
from leaderboard.data import Board, full_of
from leaderboard.palette import mark_of
from leaderboard.ranking import ranking
from leaderboard.render_streamlit import draw
from leaderboard.suites import SuiteGroup

HOW = (
    "RA is accuracy over that of the model without pruning, on the same questions; brackets and bars are 95 % "
    "intervals, clustered by image. Tinted rows are tied with the best: in 95 % of resampled sets of images they reach "
    "rank 1. Beats random: McNemar's test against random choice at the same budget, corrected by Holm for all methods."
)


OF_SUITE = (
    "RA is the mean over the benchmarks of accuracy over that of the model without pruning; brackets and bars are "
    "95 % intervals, clustered by image. Tinted rows are tied with the best. Beats random: the difference of mean RA "
    "over resampled sets of images, corrected by Holm. A method counts only if it has all benchmarks."
)
SENT = (
    "Self-reported: submitted by whoever ran it, checked for what its files can show, repeated by nobody yet. Ranked "
    "among themselves only, never with what was run here or verified."
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
    lines = [
        line for line in group.lines if line.ranked and line.run["budget"] == budget and line.run["method"] != FULL
    ]
    if not lines:
        yield Words("No run of this group has finished at a budget yet: harness run --budget 50%", "note")
    else:
        if lines[0].run["provenance"] == SELF_REPORTED:
            yield Words(SENT, "note")
        yield Words(answer(lines), "lead")
        yield Html(ranking(lines, full_of(group)))
        indicative = " † Indicative: not a publishable time." if any(line.run["indicative"] for line in lines) else ""
        how = OF_SUITE if isinstance(group, SuiteGroup) else HOW
        yield Words(f"{group.images} images. {how}{indicative}", "soft")
        yield File("CSV", "ranking.csv", csv_table([group]))
        yield File("LaTeX", "ranking.tex", latex_tables([group]))
        if len(budgets := sorted({line.run["budget"] for line in group.lines if line.ranked})) > 2:
            yield Heading("RA over all budgets")
            yield Chart(_curves(group), f"ra-{len(budgets)}-budgets")
    if isinstance(group, SuiteGroup):
        yield from _benchmarks(group, lines)
    else:
        yield from _apart(board, group)


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
        yield Words(f"Of the suite, nothing was run on {', '.join(group.choice.missing)}.", "soft")


def answer(lines: Sequence[Line]) -> str:
    """The result in one sentence."""
    ours = [line for line in lines if not mark_of(line.run["method"]).control and line.run["ra"] is not None]
    if not ours:
        return "Only controls have run at this budget."
    best = max(ours, key=lambda line: line.run["ra"])
    tied = [line.name for line in ours if line is not best and line.rank and line.rank[1] == 1]
    words = f"Best at {best.run['budget']}: {best.name}, RA {best.run['ra'] * 100:.1f} %"
    words += f", not told apart from {', '.join(tied)}" if tied else ", ahead of every other method"
    controls = [line for line in lines if mark_of(line.run["method"]).control and line.run["ra"] is not None]
    ahead = [line.name for line in controls if line.run["ra"] > best.run["ra"]]
    return words + (f". Yet these controls do better: {', '.join(ahead)}." if ahead else ".")


def _curves(group: Group) -> object:
    shown = [line for line in group.lines if line.ranked and line.run["method"] != FULL and line.run["ra"] is not None]
    names = sorted({line.name for line in shown}, key=lambda name: (not name.startswith(RANDOM), name))
    curves = [
        charts.Curve(name, own[0].run["method"], [charts.ra_point(line) for line in own])
        for name in names
        if (own := [line for line in shown if line.name == name])
    ]
    return charts.trade_off(curves, 100.0, "visual tokens a layer of the LLM (log)", "RA, %", log=True)


def _apart(board: Board, group: Group) -> Iterator[Block]:
    """Everything that is not ranked: own budgets, other tools' figures, and runs without a result."""
    native = [line for line in group.lines if line.run["budget_kind"] == "native" and line.run["status"] == OK]
    if native:
        yield Heading("At their own budgets (not comparable line by line)")
        rows = [
            (line.name, line.run["realised_tokens"], _percent(line.run["ra"]), line.run["flops_ratio"])
            for line in native
        ]
        yield Table(("method", "tokens a layer", "RA, %", "prefill FLOPs / unpruned"), rows, "own-budgets")
    reported = [run for run in board.rows if run["status"] == REPORTED]
    if reported:
        yield Heading("Self-reported: by other tools, at budgets that nobody measured here (never ranked)")
        rows = [
            (run["method"], run["model"], run["benchmark"], run["n"], _percent(run["accuracy"])) for run in reported
        ]
        yield Table(("tool", "model", "benchmark", "questions", "accuracy, %"), rows, "self-reported")
    missing = [run for run in group.failures if run["status"] != REPORTED]
    if missing:
        yield Heading("Without a ranked result")
        yield Table(
            ("run", "state", "why"), [(name_of(run), _state(run), run["message"]) for run in missing], "failures"
        )
    yield Words("Numbers that papers print stand on the page Published and are never mixed with these.", "soft")


def _state(run: Row) -> str:
    return STATUS_WORDS.get(run["status"], run["status"]) if run["status"] != FAILED_BUDGET else "failed its budget"


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 1)
