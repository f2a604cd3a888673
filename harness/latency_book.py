"""The file of a latency table while it grows: which sessions a cell has, and what a finished one adds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.latency_rows import read_table, summary_of, write_table
from harness.latency_table import Cell, Outcome
from harness.measure.machine import machine
from harness.published_latency import published
from harness.records.figures import ERROR, FAILED_BUDGET, OK
from harness.records.provenance import git_state, without_home


class Book:
    """Rows of some cells on this machine with today's code. path: None keeps them in memory."""

    def __init__(self, path: Path | None, cells: Sequence[Cell]):
        self._path = path
        self._table = read_table(path) if path else {"machines": {}, "rows": []}
        self._machine = machine()
        self._git = git_state()
        self._keys = {cell: cell.key(self._machine.id) for cell in cells}  # now: the code may change meanwhile
        self._known = {row["key"]: row for row in self._table["rows"]}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Those of the cells, in their order; cells without one are left out."""
        return [self._known[key] for key in self._keys.values() if key in self._known]

    def missing(self, sessions: int) -> list[list[Cell]]:
        """For each round, the cells that still lack that session; of those that failed only errors are tried again."""
        return [[cell for cell in self._keys if self._lacks(cell, number)] for number in range(sessions)]

    def add(self, outcome: Outcome) -> dict[str, Any]:
        """The row of an outcome, its earlier sessions included; the file holds it when this returns."""
        key = self._keys[outcome.cell]
        before = self._known.get(key, {"sessions": []})
        row = {**self._described(outcome), "sessions": before["sessions"]}
        if outcome.session is not None:
            row["sessions"] = [*row["sessions"], outcome.session]
        row |= summary_of(row["sessions"]) if row["sessions"] else {"latency": None, "verdict": None}
        self._known[key] = {"key": key, **{name: row[name] for name in row if name != "sessions"}}
        self._known[key]["sessions"] = row["sessions"]  # the long part last
        if self._path:
            write_table(self._path, self._document())
        return self._known[key]

    def _lacks(self, cell: Cell, number: int) -> bool:
        row = self._known.get(self._keys[cell])
        if row is None:
            return True
        if row["status"] == ERROR:
            return number == 0
        return row["status"] in (OK, FAILED_BUDGET) and len(row["sessions"]) <= number

    def _described(self, outcome: Outcome) -> dict[str, Any]:
        cell = outcome.cell
        identity = cell.identity(self._machine.id)
        picture = [identity.pop("width_px"), identity.pop("height_px")]
        method, words = identity.pop("method").partition(":")[0], identity.pop("text_tokens")
        return without_home({
            "status": outcome.status,
            "message": outcome.message,
            "model": identity.pop("model"),
            "method": method,
            "budget": identity.pop("budget"),
            "image_px": picture,
            "question_words": words,
            **identity,
            **outcome.facts,
            "git_commit": self._git.commit,
            "git_dirty": self._git.dirty,
            "published": published(cell.stage.model, method, str(cell.budget)),
        })  # fmt: skip

    def _document(self) -> dict[str, Any]:
        others = {key: row for key, row in self._known.items() if key not in self._keys.values()}
        machines = {**self._table["machines"], self._machine.id: self._machine.facts()}
        return {**self._table, "machines": machines, "rows": [*others.values(), *self.rows]}
