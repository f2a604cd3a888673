"""Compare: two runs on the same questions, and whether the difference is real."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import streamlit as st

from harness.report.blocks import Block, Chart, Heading, Paragraph, Table
from harness.report.compare import Versus
from harness.report.gather import Group
from harness.stats import paired_difference
from harness.store.lookup import Row, name_of
from leaderboard import charts, filters
from leaderboard.data import Board, against
from leaderboard.render_streamlit import draw

SHOWN = 200  # flipped questions that are listed


def show(board: Board) -> None:
    """The page, with its filters."""
    _, group = filters.pick_group(board)
    runs = [(name_of(line.run), line.run) for line in group.lines]
    left, right = st.columns(2)
    with left:
        a = filters.pick_run("A", "a", runs)
    with right:
        b = filters.pick_run("B", "b", runs, default=best(group))
    draw(blocks(board, group, a, b))


def best(group: Group) -> int:
    """The place of the most interesting run to begin with: the best at the middle budget, else the second run."""
    first = (at for at, line in enumerate(group.lines) if line.rank and line.rank[0] == 1)
    return next((at for at in first if group.lines[at].run["budget"] == group.middle_budget), 1)


def blocks(board: Board, group: Group, a: Row | None, b: Row | None) -> Iterator[Block]:
    """B against A: verdict, differences with intervals, flips."""
    if a is None or b is None:
        yield Paragraph("Two finished runs are needed: harness run --budget 50%", "note")
        return
    found, answers = against(board.place, a["run_id"], b["run_id"])
    verdict = found.verdict.replace("no ", "No ", 1) if found.verdict.startswith("no ") else found.verdict
    yield Paragraph(f"{verdict}.", "lead")
    for note in found.notes:
        yield Paragraph(note, "soft")
    yield Table(("", "value"), _figures(found), "comparison")
    rows = [("all questions", *_points(found.difference)), *_by_category(answers)]
    yield Chart(
        charts.differences(rows, f"accuracy of B ({name_of(b)}) minus A ({name_of(a)}), points"), "paired-difference"
    )
    yield Paragraph(f"Paired by question, 95 %, clustered by image; {group.images} images.", "soft")
    yield from _flips(answers, a, b)


def _figures(found: Versus) -> list[tuple[str, str]]:
    value, low, high = _points(found.difference)
    ra = found.ra
    return [
        ("accuracy of B minus A, points", f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"),
        ("accuracy of B / A, %", f"{100 * ra.value:.1f} [{100 * ra.low:.1f}, {100 * ra.high:.1f}]"),
        ("p of McNemar's test, by image", f"{found.p:.3g}"),
        ("questions that only A has right", str(found.flips.lost)),
        ("questions that only B has right", str(found.flips.gained)),
        ("B answers as A does, %", f"{100 * found.loyal.value:.1f}"),
        ("smallest true difference found four times in five, points", f"{100 * found.detectable:.1f}"),
    ]


def _points(difference: object) -> tuple[float, float, float]:
    return 100 * difference.value, 100 * difference.low, 100 * difference.high


def _by_category(answers: pd.DataFrame) -> Iterator[tuple[str, float, float, float]]:
    for name, rows in answers.groupby("category"):
        if rows["cluster"].nunique() > 1:
            yield str(name), *_points(paired_difference(rows["score_b"], rows["score"], rows["cluster"]))


def _flips(answers: pd.DataFrame, a: Row, b: Row) -> Iterator[Block]:
    flipped = answers[answers["score"] != answers["score_b"]]
    if flipped.empty:
        return
    more = f"; the first {SHOWN}" if len(flipped) > SHOWN else ""
    yield Heading(f"Questions whose score differs: {len(flipped)} of {len(answers)}{more}")
    columns = ["sample_id", "category", "prediction", "score", "prediction_b", "score_b"]
    told = ("question", "kind", f"A: {name_of(a)}", "A, score", f"B: {name_of(b)}", "B, score")
    yield Table(told, list(flipped[columns].head(SHOWN).itertuples(index=False, name=None)), "flips")
