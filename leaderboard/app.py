"""The board's script, run by Streamlit (`streamlit run app.py -- STORE [RESULTS]`): one page, errors as words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import streamlit as st

from harness.records.errors import HarnessError
from harness.report.blocks import Paragraph
from harness.report.page import BOARD_STYLE
from harness.store.database import default_store_path
from leaderboard.data import Board, open_board
from leaderboard.render_streamlit import draw
from leaderboard.sources import Place

PAGES = {
    "overview": (
        "Overview",
        ":material/leaderboard:",
        "Which method keeps the most accuracy at the same budget, and is the difference real?",
    ),
    "pareto": ("Pareto", ":material/show_chart:", "What does accuracy cost, and which methods are worth their cost?"),
    "method": ("Method", ":material/description:", "What does one method do, and where does it do well?"),
    "compare": (
        "Compare",
        ":material/compare_arrows:",
        "Two runs on the same questions: which is better, and where do they differ?",
    ),
    "samples": ("Samples", ":material/image_search:", "What did the method look at, and what did it throw away?"),
    "latency": ("Latency", ":material/timer:", "Where does the time go, and does pruning pay on this machine?"),
    "profile": ("Profile", ":material/speed:", "Which operators take the time?"),
    "published": ("Published", ":material/library_books:", "What do the papers print?"),
    "submit": ("Submit", ":material/upload:", "How does a method get onto this board?"),
}
SERVER_STYLE = Path(__file__).resolve().parent / "static" / "server.css"
WITHOUT_RUNS = {"published", "submit", "profile"}  # pages that need no run


def page(name: str, store: Path, results: Path | None = None) -> None:
    """One page on a store and on submissions; whatever is wrong with them is told in words."""
    title, _, question = PAGES[name]
    st.title(title)
    draw([Paragraph(question, "soft")])
    show: Callable[[Board], None] = import_module(f"leaderboard.views.{name}").show
    try:
        board = open_board(store, results)
    except HarnessError as problem:
        if name not in WITHOUT_RUNS:
            draw([Paragraph(str(problem), "note")])
            return
        board = Board(store, Place("", "", ()), ())
    for words in board.told:
        draw([Paragraph(words, "warning")])
    if not board.rows and name not in WITHOUT_RUNS:
        draw([Paragraph(f"{store} holds no runs yet. Make one: harness run --method fastv --budget 50%", "note")])
        return
    try:
        show(board)
    except HarnessError as problem:
        draw([Paragraph(str(problem), "warning")])


def main(store: Path, results: Path | None) -> None:
    """The board: navigation, style, and the page that was asked for."""
    st.set_page_config(page_title="Visual-token pruning", page_icon="✂️", layout="wide")
    st.html("".join(f"<style>{style.read_text('utf-8')}</style>" for style in (BOARD_STYLE, SERVER_STYLE)))
    pages = [
        st.Page(_shown(name, store, results), title=title, icon=icon, url_path=name, default=name == "overview")
        for name, (title, icon, _) in PAGES.items()
    ]
    shown = st.navigation(pages)
    with st.sidebar:
        draw([Paragraph(store.name, "soft")])
    shown.run()


def _shown(name: str, store: Path, results: Path | None) -> Callable[[], None]:
    return lambda: page(name, store, results)


if __name__ == "__main__":
    given = [Path(word) for word in sys.argv[1:]]
    main(given[0] if given else default_store_path(), given[1] if len(given) > 1 else None)
