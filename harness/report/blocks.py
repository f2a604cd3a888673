"""Blocks that a page consists of, and their HTML. The server draws blocks itself (leaderboard/render_streamlit.py).

All text is escaped as it becomes markup, so that no name of a method can become any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

Value = str | float | int | bool | None
LONGEST = 2000  # letters of a paragraph or cell that are shown
LONGEST_CELL = 300


class Markup(str):
    """Text that is markup already."""


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """One element. Children that are no Markup are escaped, and so is every attribute; None children vanish.

    Attributes are spelled with _ for -, and with a trailing _ where Python has the word: class_="note".
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Children one after another, escaped where they are no Markup."""
    return Markup("".join(one if isinstance(one, Markup) else escape(str(one)) for one in children if one is not None))


@dataclass(frozen=True)
class Heading:
    """A heading inside a page. level: 2, or 3 below such a one."""

    text: str
    level: Literal[2, 3] = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph, shown letter by letter whatever it holds. lead: a page's result in a sentence."""

    text: str
    kind: Literal["lead", "plain", "soft", "note", "warning"] = "plain"


@dataclass(frozen=True)
class Prose:
    """Markdown of our own making: cards and instructions, never text from a store."""

    markdown: str


@dataclass(frozen=True)
class Code:
    """Lines to copy."""

    text: str


@dataclass(frozen=True)
class Html:
    """Markup whose text was escaped as it was built."""

    markup: Markup


@dataclass(frozen=True)
class Chart:
    """A Plotly figure. name: of the file that its picture is saved as."""

    figure: Any
    name: str


@dataclass(frozen=True)
class Table:
    """Rows that can be sorted, searched and saved as CSV. columns: headers with their units."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    name: str

    def decimals(self, at: int) -> int | None:
        """Decimals that a column needs for its numbers to end alike; None where it has no fractions."""
        numbers = [row[at] for row in self.rows if isinstance(row[at], float) and row[at] == row[at]]
        return max((len(f"{number:.4f}".rstrip("0").partition(".")[2]) for number in numbers), default=None)


@dataclass(frozen=True)
class File:
    """A file to save. text: its content."""

    label: str
    name: str
    text: str


Block = Heading | Paragraph | Prose | Code | Html | Chart | Table | File


def cut(text: str, longest: int = LONGEST) -> str:
    """Text no longer than that; what is missing is told."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text) - longest} letters more)"


def html_of(block: Block, save: Callable[[File], str] | None = None) -> Markup:
    """One block as HTML. save: writes a File and gives the link to it; without it a page can hold no files."""
    match block:
        case Heading(text, level):
            return tag(f"h{level}", cut(text))
        case Paragraph(text, kind):
            return tag("p", cut(text), class_=kind)
        case Prose(markdown):
            from markdown_it import MarkdownIt

            return tag("div", Markup(MarkdownIt("commonmark", {"html": False}).render(markdown)), class_="prose")
        case Code(text):
            return tag("pre", tag("code", cut(text)))
        case Html(markup):
            return markup
        case Chart(figure, name):
            return tag("div", Markup(_script(figure.to_json())), class_="chart", data_name=name)
        case Table():
            return _table(block)
        case File(label, name):
            assert save is not None, f"this page has no room for the file {name}"
            return tag("a", f"{label} ↓", href=save(block), download=name, class_="file")


def _script(json: str) -> str:
    """Data for board.js that no text inside can end."""
    return f'<script type="application/json">{json.replace("<", chr(92) + "u003c")}</script>'


def _table(table: Table) -> Markup:
    places = range(len(table.columns))
    kinds = [
        {} if any(isinstance(row[at], int | float) for row in table.rows) else {"class_": "words"} for at in places
    ]
    digits = [table.decimals(at) for at in places]
    head = tag("tr", *(tag("th", table.columns[at], **kinds[at]) for at in places))
    body = (tag("tr", *(tag("td", _spelled(row[at], digits[at]), **kinds[at]) for at in places)) for row in table.rows)
    inner = tag("table", tag("thead", head), tag("tbody", *body), class_="sortable")
    return tag("div", tag("div", inner, class_="wide"), class_="board")


def _spelled(cell: Value, digits: int | None) -> str:
    match cell:
        case None:
            return "–"
        case bool():
            return "yes" if cell else "no"
        case float():
            return "–" if cell != cell else f"{cell:.{digits}f}"
        case _:
            return cut(str(cell), LONGEST_CELL)
