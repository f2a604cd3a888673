"""The board's sources: a local store, a folder of submissions, and profiles beside the store.

What is cached is shared by all visitors and never changed; it is asked again when a file has changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from harness.latency.traces import PROFILE, Profile
from harness.store.database import Store
from harness.submissions.all_runs import AllRuns, all_runs
from harness.submissions.folder import SUBMISSIONS

LOCK_TIMEOUT_S = 3.0  # a page waits this long for a writer's turn to end
TRACES = "traces"
_BARS = {"llm": "llm_prefill"}  # range in a trace -> stage of a bar

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
    """Number, latest change (ns) and total size of files."""
    known = [file.lstat() for file in files]
    return len(known), max((one.st_mtime_ns for one in known), default=0), sum(one.st_size for one in known)


@st.cache_resource(show_spinner=False, max_entries=4)
def opened(place: Place) -> tuple[AllRuns, tuple[str, ...]]:
    """The runs of a place; and what was mended or left out, in words. Raises HarnessError (locked, unreadable)."""
    told: list[str] = []
    store = Store(place.store, lock_timeout_s=LOCK_TIMEOUT_S, tell=told.append) if place.store else None
    found = all_runs(store, Path(place.results) if place.results else None, told.append)
    _ = found.newest  # what the store has to mend is told now
    return found, tuple(told)


def folders(store: Path) -> dict[str, Path]:
    """The profiles in the folder `traces` beside a store, by the names of their folders."""
    return {file.parent.name: file.parent for file in sorted((store.parent / TRACES).glob(f"*/{PROFILE}"))}


def arm_ms(profile: Profile, arm: str) -> dict[str, float]:
    """Stage -> ms of an arm, without the profiler's own time."""
    return {_BARS.get(one.stage, one.stage): one.ms for one in profile.stages.get(arm, [])}
