"""Writes a page's blocks as HTML for the static site."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt

from harness.report.markup import Markup, join, tag
from leaderboard.blocks import Block, Cell, Chart, Code, File, Heading, Html, Prose, Table, Words
from leaderboard.render_streamlit import cut, decimals

_META = (
    '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"connect-src 'none'; object-src 'none'; frame-src 'none'; "
    "form-action 'none'; img-src data: blob:\">"
    '<link rel="stylesheet" href="board.css"><script src="plotly.min.js"></script>'
    '<script src="board.js" defer></script>'
)
Link = tuple[str, str]  # words, file


def page(
    title: str,
    choices: Sequence[str],
    blocks: Sequence[Block],
    pages: Sequence[Link],
    beside: Sequence[tuple[Sequence[str], str]],
    folder: Path,
) -> str:
    """A whole page. pages: for the navigation; beside: (choices, file) of the same page's other sheets.

    Files to save are written into `folder`.
    """
    links = (tag("a", words, href=file, **({"class_": "here"} if words == title else {})) for words, file in pages)
    prefix = "-".join([title.lower(), *choices])
    body = join(
        tag("nav", tag("b", "Visual-token pruning"), *links),
        tag("main", tag("h1", title), *_choices(choices, beside), *(_written(one, folder, prefix) for one in blocks)),
    )
    head = tag("head", Markup(_META), tag("title", f"{title}: visual-token pruning"))
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _choices(choices: Sequence[str], beside: Sequence[tuple[Sequence[str], str]]) -> list[Markup]:
    """A row of links for each filter: to the sheet that differs in this filter alone, else to the first with it."""
    rows = []
    for at, chosen in enumerate(choices):
        found: dict[str, str] = {}
        for other, file in sorted(beside, key=lambda one: -_agreement(one[0], choices, at)):
            found.setdefault(other[at], file)
        order = list(dict.fromkeys(other[at] for other, _ in beside if other[:at] == choices[:at]))
        links = [
            tag("a", words, href=found[words], **({"class_": "here"} if words == chosen else {})) for words in order
        ]
        rows.append(tag("p", *links, class_="choices"))
    return rows


def _agreement(other: Sequence[str], choices: Sequence[str], but: int) -> int:
    return sum(a == b for at, (a, b) in enumerate(zip(other, choices, strict=True)) if at != but)


def _written(block: Block, folder: Path, prefix: str) -> Markup:
    match block:
        case Heading(text):
            return tag("h2", text)
        case Words(text, kind):
            return tag("p", cut(text), class_=kind)
        case Prose(markdown):
            return tag("div", Markup(MarkdownIt("commonmark", {"html": False}).render(markdown)), class_="prose")
        case Code(text):
            return tag("pre", tag("code", cut(text)))
        case Html(markup):
            return markup
        case Chart(figure, name):
            return tag("div", Markup(_script(figure.to_json())), class_="chart", data_name=name)
        case Table():
            return _table(block)
        case File(label, name, text):
            file = "".join(sign if sign.isalnum() or sign in "-." else "-" for sign in f"{prefix}-{name}")
            (folder / file).write_text(text, encoding="utf-8")
            return tag("a", f"{label} ↓", href=file, download=name, class_="file")


def _script(json: str) -> str:
    """Data for board.js that no text inside can end."""
    return f'<script type="application/json">{json.replace("<", chr(92) + "u003c")}</script>'


def _table(table: Table) -> Markup:
    numbers = [any(isinstance(row[at], int | float) for row in table.rows) for at in range(len(table.columns))]
    kinds = [{} if number else {"class_": "words"} for number in numbers]
    digits = [decimals(table, at) for at in range(len(table.columns))]
    head = tag("tr", *(tag("th", name, **kind) for name, kind in zip(table.columns, kinds, strict=True)))
    rows = (
        tag(
            "tr",
            *(
                tag("td", _spelled(*cell), **kind)
                for cell, kind in zip(zip(row, digits, strict=True), kinds, strict=True)
            ),
        )
        for row in table.rows
    )
    inner = tag("table", tag("thead", head), tag("tbody", *rows), class_="sortable")
    return tag("div", tag("div", inner, class_="wide"), class_="board")


def _spelled(cell: Cell, digits: int | None) -> str:
    match cell:
        case None:
            return "–"
        case bool():
            return "yes" if cell else "no"
        case float():
            return "–" if cell != cell else f"{cell:.{digits}f}"
        case _:
            return cut(str(cell), 300)
