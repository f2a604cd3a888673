"""The board's data: runs in groups that can be ranked, judged as `harness export` judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from harness.latency.break_even import BreakEven, break_even
from harness.records.errors import UsageError
from harness.records.figures import SELF_REPORTED
from harness.records.records import LatencyRow
from harness.report.compare import Versus, versus
from harness.report.gather import Group, Scores, finished, grouped, judged, means_over_draws, read_scores
from harness.stats import front_probabilities
from harness.store.lookup import Row
from leaderboard.sources import Place, opened, place_of


@dataclass(frozen=True)
class Board:
    """A place as it is now. path: of its store, there or not; rows: its runs; told: what was mended or left out."""

    path: Path
    place: Place
    rows: Sequence[Row]
    told: tuple[str, ...] = ()

    @property
    def groups(self) -> dict[str, list[Row]]:
        """Runs that share model and samples, by a name that tells groups apart; the largest group first.

        What only its sender has run is never in one group with what was run here or repeated.
        """
        named: dict[str, list[Row]] = {}
        for runs in grouped(self.rows):
            named[_unused(_group_name(runs), named)] = runs
        return named


def open_board(path: Path, results: Path | None = None) -> Board:
    """The board of a store and of a folder of submissions.

    Raises HarnessError (neither is there, locked, not a store, unreadable), each with what to do.
    """
    place = place_of(path, results)
    if not place.store and not place.results:
        raise UsageError(f"there is no store at {path} yet; `harness run` makes one")
    sources, told = opened(place)
    rows = sources.newest
    if not place.store:
        if not rows:
            raise UsageError(f"there is no store at {path} yet, nor a submission in {results}; `harness run` makes one")
        told = (*told, f"There is no store at {path} yet: these are the submissions in {results}.")
    return Board(path, place, rows, told)


def group_of(board: Board, name: str) -> Group:
    """A group's finished runs beside their controls, judged as `harness export` judges them."""
    return _group(board.place, tuple(run["run_id"] for run in board.groups[name]))


@st.cache_resource(show_spinner=False, max_entries=64)
def _group(place: Place, ids: tuple[str, ...]) -> Group:
    sources, wanted = opened(place)[0], set(ids)
    runs = [run for run in sources.newest if run["run_id"] in wanted]
    return judged(runs, scores_of(place, finished(runs)), sources.facts(ids))


@st.cache_resource(show_spinner=False, max_entries=32)
def scores_of(place: Place, ids: tuple[str, ...]) -> Scores | None:
    """Scores of runs on the same samples; None without runs. A run that lacks samples is left out."""
    return read_scores(opened(place)[0], ids)


@st.cache_data(show_spinner=False, max_entries=64)
def against(place: Place, a: str, b: str) -> tuple[Versus, pd.DataFrame]:
    """Run b against run a, and the answers of both: sample_id, category, score and prediction of each.

    Raises UsageError when they did not answer the same samples.
    """
    rows = {run["run_id"]: run for run in opened(place)[0].newest}
    samples = opened(place)[0].samples(list({a, b}), ("cluster", "category", "score", "prediction"))
    first, second = (samples[samples["run_id"] == run].set_index("sample_id").sort_index() for run in (a, b))
    return versus(rows[a], rows[b], samples), first.join(second[["score", "prediction"]].add_suffix("_b")).reset_index()


@st.cache_data(show_spinner=False, max_entries=64)
def sample_ids(place: Place, run_id: str) -> list[tuple[str, str, float]]:
    """(sample id, category, score) of a run's samples, in order."""
    found = opened(place)[0].samples([run_id], ("category", "score"))
    return list(found[["sample_id", "category", "score"]].itertuples(index=False, name=None))


SHOWN = (
    *("category", "answer", "prediction", "score", "error", "full_tokens", "realised_tokens", "kept", "merged"),
    "recall_of_target",
)


@st.cache_data(show_spinner=False, max_entries=256)
def sample_rows(place: Place, sample_id: str, ids: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Run id -> its row of `samples` for one question."""
    return {row["run_id"]: row for row in opened(place)[0].samples(ids, SHOWN, sample_id).to_dict("records")}


@st.cache_data(show_spinner=False, max_entries=64)
def break_even_of(place: Place, ids: tuple[str, ...]) -> dict[str, list[BreakEven]]:
    """Run id -> cost and saving of each timed shape."""
    found = opened(place)[0].latencies(ids)
    rows = found.rename(columns={"position_in_pair": "order"}).drop(columns=["machine_id"], errors="ignore")
    kept: dict[str, list[LatencyRow]] = {run: [] for run in ids}
    for row in rows.to_dict("records"):
        kept[row.pop("run_id")].append(LatencyRow(**row))
    return {run: break_even(own) for run, own in kept.items()}


def _group_name(runs: Sequence[Row]) -> str:
    counts = [run["n"] for run in runs if run["n"]]
    words = [runs[0]["model"], runs[0]["benchmark"], *([f"{max(counts)} questions"] if counts else [])]
    return " · ".join([*words, *([SELF_REPORTED] if runs[0]["provenance"] == SELF_REPORTED else [])])


def _unused(name: str, taken: Mapping[str, object]) -> str:
    names = [name, *(f"{name} ({number})" for number in range(2, len(taken) + 2))]
    return next(one for one in names if one not in taken)


def certainty_of(board: Board, name: str, costs: Mapping[str, float]) -> dict[str, float]:
    """Run id -> how surely the run is on the front of accuracy against these costs, within its group."""
    ids = tuple(run["run_id"] for run in board.groups[name] if run["run_id"] in costs)
    drawn, known = _draws(board.place, ids)
    shares = front_probabilities(drawn, [costs[run] for run in known]) if known else []
    return dict(zip(known, map(float, shares), strict=True))


@st.cache_resource(show_spinner=False, max_entries=64)
def _draws(place: Place, ids: tuple[str, ...]) -> tuple[np.ndarray, list[str]]:
    """(resamples, runs) mean scores over drawn images, and the runs' ids."""
    scores = scores_of(place, ids)
    if scores is None:
        return np.empty((0, 0)), []
    return means_over_draws(scores.table.to_numpy().T, scores.clusters), list(scores.table)
