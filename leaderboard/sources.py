"""Where the board reads from: a local store and a folder of submissions. Short read-only questions to both.

Nothing is kept open between two questions, so a run can finish while somebody looks. What is cached is shared by all
visitors and never changed; it is asked again when a file has changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from harness.latency.traces import PROFILE, Profile
from harness.store.database import Store
from harness.store.lookup import Row, newest, rows_of
from harness.submissions import SELF_REPORTED, VERIFIED, Submissions, read
from harness.submissions.folder import SUBMISSIONS

LOCK_TIMEOUT_S = 3.0  # a page waits this long for a writer's turn to end


LOCAL = "local"  # provenance of a run of the store, beside the submissions' two


Stamp = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """store: a database's path, "" for none; results: a folder of submissions, "" for none; stamp: of their files."""

    store: str
    results: str
    stamp: Stamp


def place_of(store: Path, results: Path | None) -> Place:
    """The place as it is now; a store or folder that is not there counts as none."""
    folder = results if results is None or results.name == SUBMISSIONS else results / SUBMISSIONS
    files = folder.rglob("*") if folder is not None and folder.is_dir() else None
    stamp = (stamp_of([store]) if store.exists() else ()) + (stamp_of(files) if files is not None else ())
    return Place(str(store) if store.exists() else "", str(folder) if files is not None else "", stamp)


def stamp_of(files: Iterable[Path]) -> Stamp:
    """What changes when one of these files does: how many, the latest change (ns), and their size."""
    known = [file.lstat() for file in files]
    return len(known), max((one.st_mtime_ns for one in known), default=0), sum(one.st_size for one in known)


@st.cache_resource(show_spinner=False, max_entries=4)
def rows(place: Place) -> tuple[list[Row], tuple[str, ...]]:
    """The runs, those of the store first, each with its `provenance`; and what was mended or left out, in words.

    Of runs that differ in code alone the newest. A run of the store that was submitted too is the store's, and
    verified where the submission is. Raises HarnessError (locked, not a store, unreadable).
    """
    told: list[str] = []
    own = newest(rows_of(_store(place, told.append))) if place.store else []
    found, left_out = _submitted(place)
    submitted = {row["run_id"]: row for row in found.rows}
    repeated = {run for run, row in submitted.items() if row["provenance"] == VERIFIED}
    local = [
        {
            **row,
            "batch": None,
            "provenance": VERIFIED if row["run_id"] in repeated else LOCAL,
            "stale": submitted.get(row["run_id"], row)["stale"],  # notes of code lie beside submissions
        }
        for row in own
    ]
    known = {row["run_id"] for row in own}
    others = [row for run, row in submitted.items() if run not in known]
    trusted = newest(row for row in others if row["provenance"] == VERIFIED)
    return [*local, *trusted, *newest(row for row in others if row["provenance"] == SELF_REPORTED)], (*told, *left_out)


def scores(place: Place, ids: Sequence[str]) -> dict[str, Sequence[float]]:
    """Run id -> the scores of its samples, by sample id."""
    found: dict[str, Sequence[float]] = {}
    if own := _stored(place, ids):
        sql = f"SELECT run_id, list(score ORDER BY sample_id) AS scores FROM samples {_of(own)} GROUP BY ALL"
        told = _store(place).query(sql, own)
        found |= dict(zip(told["run_id"], told["scores"], strict=True))
    others = _submitted(place)[0].samples(set(ids) - set(own), ("run_id", "sample_id", "score"))
    return found | {run: group.to_numpy() for run, group in others.groupby("run_id")["score"]}


def samples(place: Place, ids: Sequence[str], columns: Sequence[str], sample_id: str | None = None) -> pd.DataFrame:
    """Some columns of the samples of some runs, or of one sample, by run id and sample id."""
    own, wanted = _stored(place, ids), list(dict.fromkeys(("run_id", "sample_id", *columns)))
    parts = []
    if own:
        only, values = (" AND sample_id = ?", [sample_id]) if sample_id is not None else ("", [])
        sql = f"SELECT {', '.join(wanted)} FROM samples {_of(own)}{only} ORDER BY run_id, sample_id"
        parts.append(_store(place).query(sql, [*own, *values]))
    if set(ids) - set(own):
        given = [name for name in wanted if name != "merged"]  # a submission holds no masks
        found = _submitted(place)[0].samples(set(ids) - set(own), given)
        found = found if sample_id is None else found[found["sample_id"] == sample_id]
        parts.append(found.assign(merged=None) if "merged" in wanted else found)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=wanted)


def facts(place: Place, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Machine id -> what is known of it: the machines of the store's runs among these, and of all submissions."""
    known: dict[str, Mapping[str, Any]] = dict(_submitted(place)[0].facts)
    if own := _stored(place, ids):
        sql = f"SELECT DISTINCT machine_id, facts FROM environments {_of(own)} ORDER BY ALL"
        told = _store(place).query(sql, own)
        known |= {at: json.loads(words) for at, words in zip(told["machine_id"], told["facts"], strict=True)}
    return known


def latencies(place: Place, ids: Sequence[str]) -> pd.DataFrame:
    """The rows of `latencies` of some runs; a submission has none."""
    own = _stored(place, ids)
    return _store(place).query(f"FROM latencies {_of(own)}", own) if own else pd.DataFrame(columns=["run_id"])


@st.cache_resource(show_spinner=False, max_entries=4)
def _submitted(place: Place) -> tuple[Submissions, tuple[str, ...]]:
    """The submissions, and what was left out, in words."""
    told: list[str] = []
    found = read(Path(place.results), tell=told.append) if place.results else Submissions([], {}, {})
    return found, tuple(told)


def _stored(place: Place, ids: Sequence[str]) -> list[str]:
    """Those of the ids that are runs of the store."""
    if not place.store:
        return []
    known = {row["run_id"] for row in rows(place)[0] if row["batch"] is None}
    return [run for run in ids if run in known]


def _of(ids: Sequence[str]) -> str:
    return f"WHERE run_id IN ({', '.join('?' for _ in ids)})"


def _store(place: Place, tell: Callable[[str], object] = lambda words: None) -> Store:
    return Store(place.store, lock_timeout_s=LOCK_TIMEOUT_S, tell=tell)


FOLDER = "traces"


_BARS = {"llm": "llm_prefill"}  # range in a trace -> stage of a bar


def folders(store: Path) -> dict[str, Path]:
    """The profiles in the folder `traces` beside a store, by the names of their folders."""
    return {file.parent.name: file.parent for file in sorted((store.parent / FOLDER).glob(f"*/{PROFILE}"))}


def arm_ms(profile: Profile, arm: str) -> dict[str, float]:
    """Stage -> ms of an arm, without the profiler's own time."""
    return {_BARS.get(one.stage, one.stage): one.ms for one in profile.stages.get(arm, [])}
