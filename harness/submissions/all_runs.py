"""A local store and a folder of submissions as one set of runs. Short read-only questions to both.

Nothing is kept open between two questions, so a run can finish while somebody reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records.figures import LOCAL, SELF_REPORTED, VERIFIED
from harness.store.lookup import Row, newest, rows_of
from harness.submissions.reading import Submissions, read

if TYPE_CHECKING:
    import pandas as pd

    from harness.store.database import Store


@dataclass(frozen=True)
class AllRuns:
    """Runs of a store and submitted ones. store: None for none."""

    store: Store | None
    submissions: Submissions

    @cached_property
    def rows(self) -> list[Row]:
        """All runs, those of the store first, each with its `provenance` and `batch`.

        A run of the store that was submitted too is the store's, and verified where the submission is. Raises
        HarnessError (locked, not a store, unreadable).
        """
        submitted = {row["run_id"]: row for row in self.submissions.rows}
        repeated = {run for run, row in submitted.items() if row["provenance"] == VERIFIED}
        own = [
            {
                **row,
                "batch": None,
                "provenance": VERIFIED if row["run_id"] in repeated else LOCAL,
                "stale": submitted.get(row["run_id"], row)["stale"],  # notes of code lie beside submissions
            }
            for row in (rows_of(self.store) if self.store is not None else ())
        ]
        known = {row["run_id"] for row in own}
        return [*own, *(row for run, row in submitted.items() if run not in known)]

    @cached_property
    def newest(self) -> list[Row]:
        """Of runs that differ in code alone the last: of the store's, of verified and of self-reported ones."""
        local = [row for row in self.rows if row["batch"] is None]
        others = [row for row in self.rows if row["batch"] is not None]
        given = [[row for row in others if row["provenance"] == one] for one in (VERIFIED, SELF_REPORTED)]
        return [row for part in (local, *given) for row in newest(part)]

    def scores(self, ids: Sequence[str]) -> dict[str, Sequence[float]]:
        """Run id -> the scores of its samples, by sample id."""
        found: dict[str, Sequence[float]] = {}
        if own := self._stored(ids):
            sql = f"SELECT run_id, list(score ORDER BY sample_id) AS scores FROM samples {_of(own)} GROUP BY ALL"
            told = self.store.query(sql, own)
            found |= dict(zip(told["run_id"], told["scores"], strict=True))
        others = self.submissions.samples(set(ids) - set(own), ("run_id", "sample_id", "score"))
        return found | {run: group.to_numpy() for run, group in others.groupby("run_id")["score"]}

    def samples(self, ids: Sequence[str], columns: Sequence[str], sample_id: str | None = None) -> pd.DataFrame:
        """Some columns of the samples of some runs, or of one sample, by run id and sample id."""
        import pandas as pd

        own, wanted = self._stored(ids), list(dict.fromkeys(("run_id", "sample_id", *columns)))
        parts = []
        if own:
            only, values = (" AND sample_id = ?", [sample_id]) if sample_id is not None else ("", [])
            sql = f"SELECT {', '.join(wanted)} FROM samples {_of(own)}{only} ORDER BY run_id, sample_id"
            parts.append(self.store.query(sql, [*own, *values]))
        if set(ids) - set(own):
            given = [name for name in wanted if name != "merged"]  # a submission holds no masks
            found = self.submissions.samples(set(ids) - set(own), given)
            found = found if sample_id is None else found[found["sample_id"] == sample_id]
            parts.append(found.assign(merged=None) if "merged" in wanted else found)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=wanted)

    def facts(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Machine id -> what is known of it: the machines of these runs of the store, and of all submissions."""
        known: dict[str, Mapping[str, Any]] = dict(self.submissions.facts)
        if own := self._stored(ids):
            sql = f"SELECT DISTINCT machine_id, facts FROM environments {_of(own)} ORDER BY ALL"
            told = self.store.query(sql, own)
            known |= {at: json.loads(words) for at, words in zip(told["machine_id"], told["facts"], strict=True)}
        return known

    def latencies(self, ids: Sequence[str]) -> pd.DataFrame:
        """The rows of `latencies` of some runs; a submission has none."""
        import pandas as pd

        own = self._stored(ids)
        return self.store.query(f"FROM latencies {_of(own)}", own) if own else pd.DataFrame(columns=["run_id"])

    @cached_property
    def _own(self) -> set[str]:
        return {row["run_id"] for row in self.rows if row["batch"] is None}

    def _stored(self, ids: Sequence[str]) -> list[str]:
        return [run for run in ids if run in self._own]


def all_runs(store: Store | None, results: Path | None, tell: Callable[[str], object]) -> AllRuns:
    """The runs of a store and of the submissions below `results`, None for none; `tell` says what was left out."""
    return AllRuns(store, read(results, tell) if results is not None else Submissions([], {}, {}))


def _of(ids: Sequence[str]) -> str:
    return f"WHERE run_id IN ({', '.join('?' for _ in ids)})"
