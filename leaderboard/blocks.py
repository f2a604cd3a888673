"""What a page consists of. A view makes blocks; the server draws them, and the static site writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.report.markup import Markup

Cell = str | float | int | bool | None


@dataclass(frozen=True)
class Heading:
    """A heading inside a page."""

    text: str


@dataclass(frozen=True)
class Words:
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
    """Markup whose text was escaped as it was built (harness/report/markup.py)."""

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
    rows: Sequence[Sequence[Cell]]
    name: str


@dataclass(frozen=True)
class File:
    """A file to save. text: its content."""

    label: str
    name: str
    text: str


Block = Heading | Words | Prose | Code | Html | Chart | Table | File
