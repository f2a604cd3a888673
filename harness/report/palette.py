"""One colour and one symbol for each method, the same on every page and in every store."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from harness.report.blocks import Markup, tag

GREY, INK = "#8b939d", "#77808b"
YES, NO = "#2f9e5b", "#d4553a"
_COLOURS = (
    "#2f86cf",
    "#d9622b",
    "#229a6c",
    "#9a62c4",
    "#b98d1d",
    "#d14b86",
    "#2f9dac",
    "#94714c",
    "#6b7fd7",
    "#7a9a2c",
)
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon")
_ORDER = (
    *("quietprune", "fastv", "divprune", "visionzip", "pact", "pyramiddrop", "sparsevlm", "vispruner", "saint", "tome"),
    *("cdpruner", "aim", "vprune", "holov", "hired", "fastervlm", "vtw", "hiprune", "scope", "pixelprune", "prunesid"),
)
_CONTROLS = {
    "full": "line-ew",
    "random": "x",
    "random_pre_tokenization": "triangle-left-open",
    "random_in_vit": "triangle-up-open",
    "random_in_llm": "triangle-right-open",
    "grid": "square-open",
    "pool": "diamond-open",
    "downsample": "circle-open",
}
_GLYPHS = {
    **{"circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "cross": "✚", "star": "★", "hexagon": "⬢"},
    **{"x": "✕", "square-open": "□", "diamond-open": "◇", "circle-open": "○", "line-ew": "–"},
}


@dataclass(frozen=True)
class Mark:
    """Colour and symbol of a method. symbol: Plotly's name; control: a row to measure others against, in grey."""

    colour: str
    symbol: str
    control: bool = False


def mark_of(method: str) -> Mark:
    """The mark of a method by its name; one that is not ours gets a mark that depends on its name alone."""
    if method in _CONTROLS:
        return Mark(INK if method == "full" else GREY, _CONTROLS[method], True)
    at = _ORDER.index(method) if method in _ORDER else zlib.crc32(method.encode())
    return Mark(_COLOURS[at % len(_COLOURS)], _SYMBOLS[(at + at // len(_COLOURS)) % len(_SYMBOLS)])


def symbol(mark: Mark) -> Markup:
    """A method's mark as a letter in its colour: the server lets no drawing through."""
    return tag("span", _GLYPHS[mark.symbol], style=f"color:{mark.colour}", class_="mark")
