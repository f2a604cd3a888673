"""Which runs of a store can be submitted, with which controls; and why the others cannot."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from harness.records.errors import CorruptLog, UnknownRun
from harness.records.figures import FAILED_BUDGET, INFEASIBLE, OK, PARTIAL
from harness.records.provenance import method_file
from harness.records.records import BLIND, FULL, RANDOM
from harness.report.page import command_words
from harness.store.log_reader import RunContents, read_log
from harness.store.lookup import Row, name_of, named, newest, rows_of
from harness.submissions.run_checks import CELL, RANDOM_WEIGHTS

if TYPE_CHECKING:
    from harness.store.database import Store


@dataclass(frozen=True)
class Chosen:
    """A run that can be submitted, its unpruned run (itself, if it is that) and its random runs by seed."""

    run: RunContents
    full: RunContents
    randoms: tuple[RunContents, ...]


@dataclass(frozen=True)
class Refused:
    """A run that cannot be submitted. why: the reason, and what to do."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


def choose(store: Store, words: Sequence[str] = ()) -> tuple[list[Chosen], list[Refused]]:
    """The runs that the words mean (ids, their beginnings, METHOD[:PRESET][:BUDGET]), else the newest of each cell.

    Raises UnknownRun for a word that means none.
    """
    rows = rows_of(store)
    logs = cache(_slim)
    picker = _Picker(store, newest(rows), logs)
    chosen, refused = [], []
    for row in _meant(rows, words):
        found = picker.pick(row)
        (chosen if isinstance(found, Chosen) else refused).append(found)
    return chosen, refused


def _meant(rows: Sequence[Row], words: Sequence[str]) -> list[Row]:
    if not words:
        return newest(rows)
    meant: dict[str, Row] = {}
    for word in words:
        found = named(rows, word)
        if not found:
            raise UnknownRun(f"no run {word!r} in the store; `harness list runs` shows them")
        meant |= {row["run_id"]: row for row in found}
    return list(meant.values())


@dataclass(frozen=True)
class _Picker:
    """Finds controls among the newest rows of a store, and reads logs."""

    store: Store
    rows: Sequence[Row]
    logs: Callable[[Path], RunContents | None]

    def pick(self, row: Row) -> Chosen | Refused:
        name = f"{name_of(row)} ({row['run_id'][:8]})"
        why = next(_faults(row), None)
        contents = None if why else self._contents(row)
        why = why or _log_fault(contents)
        if why:
            return Refused(name, why)
        full = contents if row["method"] == FULL else self._control(row, FULL)
        if full is None:
            return Refused(name, f"its unpruned run cannot be submitted with it; {_again(row)}")
        randoms = [] if row["method"] in (FULL, RANDOM) else self._randoms(row)
        if not randoms and row["budget_kind"] != "native" and row["method"] not in (FULL, RANDOM):
            return Refused(name, f"no random run at {row['budget']} can be submitted with it; {_again(row)}")
        return Chosen(contents, full, tuple(randoms))

    def _control(self, row: Row, method: str) -> RunContents | None:
        return next(self._controls(row, method), None)

    def _randoms(self, row: Row) -> list[RunContents]:
        return sorted(self._controls(row, RANDOM), key=lambda one: one.spec.seed)

    def _controls(self, row: Row, method: str) -> Iterator[RunContents]:
        keys = CELL if method == FULL else (*CELL, "budget")
        for other in self.rows:
            if other["method"] == method and all(other[key] == row[key] for key in keys):
                contents = None if next(_faults(other), None) else self._contents(other)
                if contents is not None and _log_fault(contents) is None:
                    yield contents

    def _contents(self, row: Row) -> RunContents | None:
        return self.logs(self.store.log_path(row["run_id"]))


def _slim(path: Path) -> RunContents | None:
    """What a log holds, without the masks, which are not submitted; None for one that is gone or torn."""
    try:
        contents = read_log(path) if path.is_file() else None
    except CorruptLog:
        return None
    if contents is None:
        return None
    records = {name: replace(record, kept={}, merged={}) for name, record in contents.records.items()}
    return replace(contents, records=records, latencies=(), resources=())


def _faults(row: Row) -> Iterator[str]:
    """Why a run cannot be submitted by what the store knows of it."""
    method = row["method"]
    if row["status"] == PARTIAL:
        yield f"it is unfinished; {_again(row)}, which goes on where it stopped"
    elif row["status"] == FAILED_BUDGET:
        yield f"it failed its budget ({row['message']})"
    elif row["status"] != OK:
        yield f"it is {row['status']}: {row['message']}"
    if row["status"] not in (OK, PARTIAL, FAILED_BUDGET, INFEASIBLE) or row["benchmark"].endswith(BLIND):
        yield "only runs that saw their images and kept to a budget are submitted"
    elif row["accuracy"] is None:
        yield "its questions have no scores of their own, so that it is never ranked"
    if row["sample_limit"] is not None:
        yield f"it answered the first {row['sample_limit']} samples only; run it without --limit"
    if row["model_revision"].startswith(RANDOM_WEIGHTS):
        yield "its model has random weights: its answers mean nothing"
    if row["model"].startswith(("/", "~", ".")):
        yield f"its model lies in a folder of yours, {row['model']}; run it by its hub id, so that others can"
    if row["stale"] is None and method_file(method) is None:
        yield f"the file of {method} is not here; submit it from the folder where you ran it"
    elif row["stale"]:
        yield f"it is stale: the code that gives answers, or the file of {method}, changed since; {_again(row)}"


def _log_fault(contents: RunContents | None) -> str | None:
    """Why a run cannot be submitted by what its log says of the code that ran."""
    if contents is None or contents.figures is None:
        return "its log is gone or torn; run it again with --force"
    facts = [session.environment.facts for session in contents.sessions]
    if any(one.get("git_dirty") for one in facts):
        return "the checkout had changes that are in no commit when it ran; commit them and run it again with --force"
    if not all({"machine_id", "hardware", "software"} <= one.keys() for one in facts):
        return "its log does not say on what machine it ran; run it again with --force"
    return None


def _again(row: Row) -> str:
    return f"type again: {shlex.join(['harness', *command_words({**row, 'sample_limit': None})])}"


def source_of(method: str) -> bytes:
    """The bytes of a method's file. Raises UnknownRun when it is gone."""
    path: Path | None = method_file(method)
    if path is None:
        raise UnknownRun(f"the file of {method} is not here; submit from the folder where you ran it")
    return path.read_bytes()
