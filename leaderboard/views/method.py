"""Method: what one method is, where ours departs from its authors', and how it does over budgets."""

from __future__ import annotations

from collections.abc import Iterator

import streamlit as st

from harness.report.gather import FULL, RANDOM, Group, Line
from leaderboard import charts, filters
from leaderboard.blocks import Block, Chart, Code, Heading, Prose, Table, Words
from leaderboard.cards import card_of
from leaderboard.data import Board, full_of
from leaderboard.palette import mark_of
from leaderboard.render_streamlit import draw


def show(board: Board) -> None:
    """The page, with its filters."""
    left, right = st.columns([3, 1])
    with left:
        _, group = filters.pick_group(board)
    with right:
        chosen = filters.pick("Method", "method", methods_of(group))
    draw(blocks(group, chosen))


def methods_of(group: Group) -> list[str]:
    """Methods with a finished run in a group, controls last."""
    names = {line.run["method"] for line in group.lines if line.run["method"] != FULL}
    return sorted(names, key=lambda name: (mark_of(name).control, name))


def blocks(group: Group, method: str | None) -> Iterator[Block]:
    """The card of a method, its curve over budgets, and its accuracy by kind of question."""
    own = [line for line in group.lines if line.run["method"] == method]
    if not own or method is None:
        yield Words("No method has a finished run in this group yet: harness run --budget 50%", "note")
        return
    shown = [line for line in own if line.ranked and line.run["ra"] is not None]
    if shown:
        yield Heading(f"{method} over budgets, beside random choice")
        yield Chart(_curve(group, shown, method), f"method-{charts.file_name(method)}")
    yield Heading("Its runs")
    yield _runs(own)
    yield Heading("Accuracy by kind of question, %")
    yield _by_category(group, own)
    card = card_of(method)
    if card.markdown:
        yield Heading("Its card")
        yield Prose(card.markdown)
    elif card.docstring:
        yield Heading("What its file says")
        yield Code(card.docstring)
    else:
        yield Words("The file of this method is not on this machine, so there is no card.", "soft")


def _curve(group: Group, own: list[Line], method: str) -> object:
    random = [
        line for line in group.lines if line.run["method"] == RANDOM and line.ranked and line.run["ra"] is not None
    ]
    named: dict[str, list[Line]] = {}
    for line in (random if method != RANDOM else []) + own:
        named.setdefault(line.name, []).append(line)
    curves = [
        charts.Curve(name, lines[0].run["method"], [charts.ra_point(line) for line in lines])
        for name, lines in named.items()
    ]
    return charts.trade_off(curves, 100.0, "visual tokens a layer of the LLM (log)", "RA, %", log=True)


def _runs(own: list[Line]) -> Table:
    rows = [
        (
            line.name,
            line.run["budget"],
            _percent(line.run["ra"]),
            _percent(line.run["accuracy"]),
            line.beats_random,
            _rounded(line.run["realised_tokens"], 1),
            _rounded(line.run["flops_ratio"], 3),
            _percent(line.run["lr"]),
            _percent(line.run["recall_of_target"]),
            line.run["run_id"],
        )
        for line in own
    ]
    columns = ("method", "budget", "RA, %", "accuracy, %", "beats random", "tokens a layer", "prefill FLOPs / unpruned")
    return Table((*columns, "LR, %", "target kept, %", "run"), rows, "runs")


def _by_category(group: Group, own: list[Line]) -> Table:
    full = full_of(group)
    lines = [*([full] if full else []), *own]
    columns = ("run", *(f"{name} (n = {count})" for name, count in group.categories.items()))
    rows = [
        (
            line.name if line is full else f"{line.name} {line.run['budget']}",
            *(_percent(line.accuracy_by_category.get(name)) for name in group.categories),
        )
        for line in lines
    ]
    return Table(columns, rows, "by-category")


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 1)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
