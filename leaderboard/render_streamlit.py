"""Draws a page's blocks on the server. Text from a store is never read as Markdown or markup."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from harness.report.blocks import (
    LONGEST_CELL,
    Block,
    Chart,
    Code,
    File,
    Heading,
    Html,
    Paragraph,
    Prose,
    Table,
    Value,
    cut,
)

_LOOKS = {"lead": "font-size:1.15rem;font-weight:600", "plain": "", "soft": "opacity:.68"}
LONG = 32  # letters of a cell that need a wide column
LETTER, WIDEST = 8, 700  # pixels


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
            st.html(f"<h3>{escape(text)}</h3>")
        case Paragraph(text, "lead" | "plain" | "soft" as kind):
            st.html(f'<p style="margin:0;{_LOOKS[kind]}">{escape(cut(text))}</p>')
        case Paragraph(text, kind):
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
        if (digits := table.decimals(at)) is not None:
            styles[name] = st.column_config.NumberColumn(format=f"%.{digits}f")
        elif (longest := max((len(row[at]) for row in table.rows if isinstance(row[at], str)), default=0)) > LONG:
            styles[name] = st.column_config.TextColumn(width=min(LETTER * longest, WIDEST))
    return styles


def frame_of(table: Table) -> pd.DataFrame:
    """A table as a frame, its long texts cut."""
    return pd.DataFrame([list(map(_said, row)) for row in table.rows], columns=list(table.columns))


def _said(cell: Value) -> Value:
    """Yes and no as words, long texts cut."""
    word = {True: "yes", False: "no"}[cell] if isinstance(cell, bool) else cell
    return cut(word, LONGEST_CELL) if isinstance(word, str) else word


def _save(files: list[File]) -> None:
    if files:
        for column, file in zip(st.columns([1] * len(files) + [12 - len(files)]), files, strict=False):
            column.download_button(
                file.label, file.text, file_name=file.name, key=f"file:{file.name}", on_click="ignore"
            )


def _plain_markdown(text: str) -> str:
    r"""Text in which Markdown finds nothing: every sign of ASCII that could mean something has a \ before it."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()#+-.!|<>~$:^&@=/" else sign for sign in text)
