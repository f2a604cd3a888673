"""Method: what one method is, where ours departs from its authors', and how it does over budgets."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import streamlit as st

from harness.records.provenance import ROOT, method_file
from harness.records.records import FULL, RANDOM
from harness.report.blocks import Block, Chart, Code, Heading, Paragraph, Prose
from harness.report.gather import Group, Line
from harness.report.palette import mark_of
from harness.report.tables import EACH_RUN, by_category, table
from leaderboard import charts, filters
from leaderboard.data import Board
from leaderboard.render_streamlit import draw

PAGE = ROOT / "docs" / "methods.md"


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
        yield Paragraph("No method has a finished run in this group yet: harness run --budget 50%", "note")
        return
    shown = [line for line in own if line.ranked and line.run["ra"] is not None]
    if shown:
        yield Heading(f"{method} over budgets, beside random choice")
        yield Chart(_curve(group, shown, method), f"method-{charts.file_name(method)}")
    yield Heading("Its runs")
    yield table(EACH_RUN, own, "runs")
    yield Heading("Accuracy by kind of question")
    yield table(by_category(group), [*([group.full] if group.full else []), *own], "by-category")
    yield from _card(method)


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


def _card(method: str) -> Iterator[Block]:
    """The card of docs/methods.md, else the docstring of the method's file, read without importing it."""
    parts = re.split(r"^## (\S+)\n", PAGE.read_text("utf-8"), flags=re.MULTILINE) if PAGE.is_file() else [""]
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    source = method_file(method)
    if method in sections:
        yield Heading("Its card")
        yield Prose(sections[method].strip())
    elif source is not None:
        yield Heading("What its file says")
        yield Code(ast.get_docstring(ast.parse(source.read_text("utf-8"))) or "")
    else:
        yield Paragraph("The file of this method is not on this machine, so there is no card.", "soft")
