"""Printing of the command line: data on stdout, messages on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

WIDE = 200  # columns of a table that goes to a file or a pipe


def tell(message: str) -> None:
    """One line for people, on stderr."""
    print(f"harness: {message}", file=sys.stderr)


def print_json(document: Any) -> None:
    """One JSON document on stdout; not-a-number and pandas' missing values become null."""
    print(json.dumps(plain(document), indent=2, ensure_ascii=False))


def plain(value: Any) -> Any:
    """A value as JSON can say it."""
    match value:
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case bool() | int() | str() | None:
            return value
        case datetime():
            return None if value != value else value.isoformat()  # pandas' NaT is not equal to itself
        case _:
            return _number(value)


def _number(value: Any) -> Any:
    if hasattr(value, "item"):  # numpy's scalars
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if str(value) in ("<NA>", "NaT") else str(value)


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """A table on stdout, one row each; whole cells whatever the width of the terminal when it is no terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(spell(plain(row[column])) for column in columns))
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    console.print(table, highlight=False, markup=False)


def spell(value: Any) -> str:
    """A JSON value in a table's cell."""
    match value:
        case None:
            return "–"
        case True | False:
            return "yes" if value else "no"
        case float():
            return f"{value:.3f}"
        case list():
            return ", ".join(map(str, value)) or "–"
        case dict():
            return ", ".join(f"{key} {item}" if not isinstance(item, dict) else str(key) for key, item in value.items())
        case _:
            return str(value) or "–"
