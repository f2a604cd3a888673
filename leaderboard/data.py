"""What the board reads: short, cached, read-only questions to a store, asked again when the file has changed.

Nothing is kept open between two questions, so a run can finish while somebody looks. What is cached is shared by all
visitors and never changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from harness.errors import UsageError
from harness.figures import OK
from harness.measure.break_even import BreakEven, break_even
from harness.records import LatencyRow
from harness.report.gather import FULL, Group, Line, assessed
from harness.selecting import Row, newest, rows_of
from harness.stats import front_probabilities
from harness.store import Store
from harness.versus import Versus, samples_of, versus
from leaderboard.frontier import means_over_draws, resamples_for

LOCK_TIMEOUT_S = 3.0  # a page waits this long for a writer's turn to end
GROUP = ("model", "model_revision", "benchmark", "benchmark_revision", "sample_ids")
Stamp = tuple[int, int]  # of the database file: when it last changed (ns), and its size


@dataclass(frozen=True)
class Board:
    """A store as it is now. rows: its runs, of those that differ in code alone the newest. told: what was mended."""

    path: Path
    stamp: Stamp
    rows: Sequence[Row]
    told: tuple[str, ...] = ()

    @property
    def groups(self) -> dict[str, list[Row]]:
        """Runs that share model and samples, by a name that tells groups apart; the largest group first."""
        found: dict[tuple, list[Row]] = {}
        for run in self.rows:
            found.setdefault(tuple(run[key] for key in GROUP), []).append(run)
        named: dict[str, list[Row]] = {}
        for runs in sorted(found.values(), key=lambda runs: (-_finished(runs), runs[0]["model"])):
            named[_unused(_group_name(runs), named)] = runs
        return named


def open_board(path: Path) -> Board:
    """The board of a store. Raises HarnessError (missing, locked, not a store, unreadable), each with what to do."""
    if not path.exists():
        raise UsageError(f"there is no store at {path} yet; `harness run` makes one")
    rows, told = _rows(str(path), stamp_of(path))
    return Board(path, stamp_of(path), rows, told)


def stamp_of(path: Path) -> Stamp:
    """What changes when a run was taken in."""
    known = path.stat()
    return known.st_mtime_ns, known.st_size


@st.cache_resource(show_spinner=False, max_entries=4)
def _rows(path: str, stamp: Stamp) -> tuple[list[Row], tuple[str, ...]]:
    told: list[str] = []
    return newest(rows_of(_store(path, told))), tuple(told)


def _store(path: str, told: list[str] | None = None) -> Store:
    return Store(path, lock_timeout_s=LOCK_TIMEOUT_S, tell=(told if told is not None else []).append)


def group_of(board: Board, name: str) -> Group:
    """A group's finished runs beside their controls, judged as `harness report` judges them."""
    runs = board.groups[name]
    found = _group(str(board.path), board.stamp, tuple(run["run_id"] for run in runs))
    return found


@st.cache_resource(show_spinner=False, max_entries=64)
def _group(path: str, stamp: Stamp, ids: tuple[str, ...]) -> Group:
    rows, _ = _rows(path, stamp)
    runs = [run for run in rows if run["run_id"] in set(ids)]
    store = _store(path)
    scores = _scores(store, [run["run_id"] for run in runs if run["accuracy"] is not None and run["n"]])
    lines = (
        assessed(runs, scores.table, scores.clusters, scores.by_category, resamples_for(scores.clusters))
        if scores
        else []
    )
    return Group(
        model=runs[0]["model"],
        benchmark=runs[0]["benchmark"],
        lines=lines,
        categories=scores.categories if scores else {},
        images=len(np.unique(scores.clusters)) if scores else 0,
        failures=[run for run in runs if run["status"] != OK],
        facts=_facts(store, runs),
    )


@dataclass(frozen=True)
class _Scores:
    """table: (samples, runs) scores, a column a run id; clusters: (samples,) numbers of images."""

    table: pd.DataFrame
    clusters: np.ndarray
    categories: Mapping[str, int]
    by_category: Mapping[str, Mapping[str, float]]


def _scores(store: Store, ids: Sequence[str]) -> _Scores | None:
    """Scores of runs on the same samples; None without runs. A run that lacks samples is left out."""
    if not ids:
        return None
    marks = ", ".join("?" for _ in ids)
    found = store.query(
        f"SELECT run_id, list(score ORDER BY sample_id) AS scores FROM samples WHERE run_id IN ({marks}) GROUP BY ALL",
        list(ids),
    )
    columns = dict(zip(found["run_id"], found["scores"], strict=True))
    longest = max(columns, key=lambda run: len(columns[run]))
    about = store.query("SELECT cluster, category FROM samples WHERE run_id = ? ORDER BY sample_id", [longest])
    table = pd.DataFrame({run: scores for run, scores in columns.items() if len(scores) == len(about)})
    means = table.groupby(about["category"].to_numpy()).mean()
    counts = about["category"].value_counts().sort_index()
    return _Scores(
        table,
        pd.factorize(about["cluster"], sort=True)[0],  # sorted as harness.stats does, for the same draws
        {str(name): int(count) for name, count in counts.items()},
        {run: {str(name): float(value) for name, value in means[run].items()} for run in table},
    )


def _facts(store: Store, runs: Sequence[Row]) -> dict[str, Mapping[str, Any]]:
    marks = ", ".join("?" for _ in runs)
    found = store.query(
        f"SELECT DISTINCT machine_id, facts FROM environments WHERE run_id IN ({marks}) ORDER BY ALL",
        [run["run_id"] for run in runs],
    )
    return {at: json.loads(facts) for at, facts in zip(found["machine_id"], found["facts"], strict=True)}


@st.cache_data(show_spinner=False, max_entries=64)
def against(path: str, stamp: Stamp, a: str, b: str) -> tuple[Versus, pd.DataFrame]:
    """Run b against run a, and the answers of both: sample_id, category, score and prediction of each.

    Raises UsageError when they did not answer the same samples.
    """
    rows = {run["run_id"]: run for run in _rows(path, stamp)[0]}
    samples = samples_of(_store(path), [rows[a], rows[b]])
    first, second = (samples[samples["run_id"] == run].set_index("sample_id").sort_index() for run in (a, b))
    return versus(rows[a], rows[b], samples), first.join(second[["score", "prediction"]].add_suffix("_b")).reset_index()


@st.cache_data(show_spinner=False, max_entries=64)
def sample_ids(path: str, stamp: Stamp, run_id: str) -> list[tuple[str, str, float]]:
    """(sample id, category, score) of a run's samples, in order."""
    found = _store(path).query(
        "SELECT sample_id, category, score FROM samples WHERE run_id = ? ORDER BY sample_id", [run_id]
    )
    return list(found.itertuples(index=False, name=None))


@st.cache_data(show_spinner=False, max_entries=256)
def sample_rows(path: str, stamp: Stamp, sample_id: str, ids: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Run id -> its row of `samples` for one question."""
    marks = ", ".join("?" for _ in ids)
    found = _store(path).query(f"FROM samples WHERE sample_id = ? AND run_id IN ({marks})", [sample_id, *ids])
    return {row["run_id"]: row for row in found.to_dict("records")}


@st.cache_data(show_spinner=False, max_entries=64)
def break_even_of(path: str, stamp: Stamp, ids: tuple[str, ...]) -> dict[str, list[BreakEven]]:
    """Run id -> cost and saving of each timed shape."""
    marks = ", ".join("?" for _ in ids)
    found = _store(path).query(f"FROM latencies WHERE run_id IN ({marks})", list(ids))
    rows = found.rename(columns={"position_in_pair": "order"}).drop(columns=["machine_id"])
    kept: dict[str, list[LatencyRow]] = {run: [] for run in ids}
    for row in rows.to_dict("records"):
        kept[row.pop("run_id")].append(LatencyRow(**row))
    return {run: break_even(own) for run, own in kept.items()}


def full_of(group: Group) -> Line | None:
    """The unpruned run of a group."""
    return next((line for line in group.lines if line.run["method"] == FULL), None)


def _finished(runs: Sequence[Row]) -> int:
    return sum(run["accuracy"] is not None for run in runs)


def _group_name(runs: Sequence[Row]) -> str:
    counts = [run["n"] for run in runs if run["n"]]
    return f"{runs[0]['model']} · {runs[0]['benchmark']}" + (f" · {max(counts)} questions" if counts else "")


def _unused(name: str, taken: Mapping[str, object]) -> str:
    names = [name, *(f"{name} ({number})" for number in range(2, len(taken) + 2))]
    return next(one for one in names if one not in taken)


def certainty_of(board: Board, name: str, costs: Mapping[str, float]) -> dict[str, float]:
    """Run id -> how surely the run is on the front of accuracy against these costs, within its group."""
    ids = tuple(run["run_id"] for run in board.groups[name] if run["run_id"] in costs)
    drawn, known = _draws(str(board.path), board.stamp, ids)
    shares = front_probabilities(drawn, [costs[run] for run in known]) if known else []
    return dict(zip(known, map(float, shares), strict=True))


@st.cache_resource(show_spinner=False, max_entries=64)
def _draws(path: str, stamp: Stamp, ids: tuple[str, ...]) -> tuple[np.ndarray, list[str]]:
    """(resamples, runs) mean scores over drawn images, and the runs' ids."""
    scores = _scores(_store(path), ids)
    if scores is None:
        return np.empty((0, 0)), []
    return means_over_draws(scores.table.to_numpy().T, scores.clusters), list(scores.table)
