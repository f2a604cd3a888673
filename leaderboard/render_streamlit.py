"""Draws a page's blocks on the server. Text from a store is never read as Markdown or markup."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
import streamlit as st

from leaderboard.blocks import Block, Cell, Chart, Code, File, Heading, Html, Prose, Table, Words

_LOOKS = {"lead": "font-size:1.15rem;font-weight:600", "plain": "", "soft": "opacity:.68"}
LONG = 32  # letters of a cell that need a wide column
LETTER, WIDEST = 8, 700  # pixels
LONGEST = 2000  # letters of a paragraph or cell that are sent to the browser


def draw(blocks: Iterable[Block]) -> None:
    """The blocks, from top to bottom; files to save stand side by side."""
    files: list[File] = []
    for block in blocks:
        if isinstance(block, File):
            files.append(block)
            continue
        _save(files)
        files = []
        _draw(block)
    _save(files)


def _draw(block: Block) -> None:
    match block:
        case Heading(text):
            st.html(f"<h3>{_escaped(text)}</h3>")
        case Words(text, "lead" | "plain" | "soft" as kind):
            st.html(f'<p style="margin:0;{_LOOKS[kind]}">{_escaped(cut(text))}</p>')
        case Words(text, kind):
            (st.warning if kind == "warning" else st.info)(_plain_markdown(cut(text)))
        case Prose(markdown):
            st.markdown(markdown)
        case Code(text):
            st.code(cut(text), language=None)
        case Html(markup):
            st.html(markup)
        case Chart(figure, name):
            config = {"displaylogo": False, "toImageButtonOptions": {"format": "png", "scale": 3, "filename": name}}
            st.plotly_chart(figure, config=config, key=f"chart:{name}")
        case Table():
            look = {"column_config": _styles(block), "placeholder": "–", "hide_index": True, "width": "stretch"}
            st.dataframe(frame_of(block), key=f"table:{block.name}", **look)


def _styles(table: Table) -> dict[str, Any]:
    """Columns whose numbers end alike, and room for long texts."""
    styles = {}
    for at, name in enumerate(table.columns):
        if (digits := decimals(table, at)) is not None:
            styles[name] = st.column_config.NumberColumn(format=f"%.{digits}f")
        elif (longest := max((len(row[at]) for row in table.rows if isinstance(row[at], str)), default=0)) > LONG:
            styles[name] = st.column_config.TextColumn(width=min(LETTER * longest, WIDEST))
    return styles


def frame_of(table: Table) -> pd.DataFrame:
    """A table as a frame, its long texts cut."""
    rows = [
        [cut(spelled, 300) if isinstance(spelled := _said(cell), str) else cell for cell in row] for row in table.rows
    ]
    return pd.DataFrame(rows, columns=list(table.columns))


def decimals(table: Table, at: int) -> int | None:
    """How many decimals a column needs, so that its numbers end alike; None where it has no fractions."""
    cells = [row[at] for row in table.rows]
    if not any(isinstance(cell, float) and cell == cell for cell in cells):
        return None
    return max(len(f"{cell:.4f}".rstrip("0").partition(".")[2]) for cell in cells if isinstance(cell, float))


def _said(cell: Cell) -> Cell:
    """Yes and no as words."""
    return {True: "yes", False: "no"}[cell] if isinstance(cell, bool) else cell


def cut(text: str, longest: int = LONGEST) -> str:
    """Text no longer than that; what is missing is told."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest} letters more)"


def _save(files: list[File]) -> None:
    if files:
        for column, file in zip(st.columns([1] * len(files) + [12 - len(files)]), files, strict=False):
            column.download_button(
                file.label, file.text, file_name=file.name, key=f"file:{file.name}", on_click="ignore"
            )


def _escaped(text: str) -> str:
    from html import escape

    return escape(text)


def _plain_markdown(text: str) -> str:
    r"""Text in which Markdown finds nothing: every sign of ASCII that could mean something has a \ before it."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()#+-.!|<>~$:^&@=/" else sign for sign in text)
