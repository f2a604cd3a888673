"""Filters that live in the URL, so that a link shows what its sender saw.

A value from a URL counts only where it is one of the options; anything else means the default.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from harness.report.gather import Group
from harness.store.lookup import Row
from leaderboard.data import Board, group_of
from leaderboard.suites import suite_group, suites_of

_KEPT = "filter:"  # where a choice waits while another page is shown


def pick(label: str, name: str, options: Sequence[str], default: int = 0, help: str | None = None) -> str | None:
    """The chosen option; None without any. name: its key in the URL."""
    if not options:
        return None
    asked = st.query_params.get(name) or st.session_state.get(_KEPT + name)
    at = options.index(asked) if asked in options else default
    chosen = st.selectbox(label, options, index=at, key=f"pick:{name}", help=help) or options[at]
    st.session_state[_KEPT + name] = chosen
    if st.query_params.get(name) != chosen:
        st.query_params[name] = chosen
    return chosen


def pick_group(board: Board, suites: bool = False) -> tuple[str, Group]:
    """The chosen group of runs: model and benchmark. suites: offer several benchmarks as one, too."""
    offered = suites_of(board) if suites else {}
    words = "Model · benchmark or suite" if offered else "Model · benchmark"
    chosen = pick(words, "on", [*board.groups, *offered], help="Runs of one group answered the same questions.")
    assert chosen is not None, "a board without runs has no pages"
    return chosen, suite_group(board, offered[chosen]) if chosen in offered else group_of(board, chosen)


def pick_budget(group: Group) -> str | None:
    """The chosen budget of a group."""
    budgets = group.budgets
    return pick(
        "Budget",
        "budget",
        budgets,
        budgets.index(group.middle_budget) if budgets else 0,
        help="Visual tokens that a layer of the LLM sees on average.",
    )


def pick_run(label: str, name: str, runs: Sequence[tuple[str, Row]], default: int = 0) -> Row | None:
    """The chosen run. runs: (words, run); words that name several runs get the beginning of the id."""
    words = [text for text, _ in runs]
    told = [f"{text} · {run['run_id'][:8]}" if words.count(text) > 1 else text for text, run in runs]
    chosen = pick(label, name, told, min(default, max(len(told) - 1, 0)))
    return None if chosen is None else runs[told.index(chosen)][1]
