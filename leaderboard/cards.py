"""What a method says of itself, without importing it: its card of docs/methods.md, else its docstring."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from harness.records.provenance import ROOT, method_file

PAGE = ROOT / "docs" / "methods.md"


@dataclass(frozen=True)
class Card:
    """A card. markdown: ours, where the page of methods has it; docstring: the module's words otherwise."""

    markdown: str = ""
    docstring: str = ""


def card_of(method: str, page: Path = PAGE) -> Card:
    """The card of a method by name; an empty one where nothing is known of it (any more)."""
    if page.is_file():
        parts = re.split(r"^## (\S+)\n", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        sections = dict(zip(parts[1::2], parts[2::2], strict=True))
        if method in sections:
            return Card(markdown=sections[method].strip())
    source = method_file(method)
    if source is None:
        return Card()
    return Card(docstring=ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "")
