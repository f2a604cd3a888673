"""Submissions as the board needs them: rows and frames with a store's columns, and whether somebody repeated them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.budget.spec import BudgetSpec
from harness.records.figures import OK, SELF_REPORTED, VERIFIED, Figures
from harness.records.provenance import current_code
from harness.records.run_spec import RunSpec
from harness.reference.paths import SUITE
from harness.submissions.folder import SUBMISSIONS, Batch, Problem, batches, codes_of, is_retired, open_batch, verified
from harness.submissions.parquet import read_rows
from harness.submissions.rows import read_counts

if TYPE_CHECKING:
    import pandas as pd

_OF_FILE = {  # column of a store's `samples` -> columns of the file that it is made from
    **{name: (name,) for name in ("run_id", "sample_id", "cluster", "category", "prediction", "score")},
    **{name: (name,) for name in ("full_tokens", "asked_tokens", "recall_of_target", "error")},
    **{name: ("entering_tokens",) for name in ("realised_tokens", "entering")},
    "prefill_flops": ("prefill_flops", "llm_prefill_flops", "prefill_2ndm_flops"),
    **{name: ("run_id", "sample_id") for name in ("answer", "kept", "merged", "inference_time_s")},
}
SAMPLE_COLUMNS = tuple(_OF_FILE)
_NO_FIGURES = asdict(Figures(OK))
_ADDED = ("budget", "machine_id", "started_at", "finished_at", "stale", "provenance", "batch")
RUN_COLUMNS = (
    *("run_id", "cell_id", "sample_limit"),
    *(one.name for one in fields(RunSpec) if one.name != "limit"),
    *(*_NO_FIGURES, *_ADDED),
)


@dataclass(frozen=True)
class Submissions:
    """All submitted runs of a folder, one row a run id.

    rows: with the columns of a store's `runs` (docs/store.md), `stale`, and two more: `provenance` ("verified" |
    "self-reported") and `batch`; None where nothing was measured. facts: machine id -> hardware and software.
    """

    rows: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, Path]  # run id -> the file that holds its samples

    @property
    def runs(self) -> pd.DataFrame:
        """The rows as a frame."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(RUN_COLUMNS))

    def samples(
        self,
        run_ids: Iterable[str] | None = None,
        columns: Sequence[str] = ("run_id", "sample_id", "cluster", "category", "score", "prediction"),
    ) -> pd.DataFrame:
        """Per-sample rows of some runs, or of all, with columns of a store's `samples` (SAMPLE_COLUMNS names them).

        By run id, then sample id. Not in a submission, hence empty: `kept` and `merged` ({}), `inference_time_s`
        (NaN); `answer` is the embedded suite's, None elsewhere. Raises BadRows for a file that cannot be believed.
        """
        import pandas as pd

        wanted = list(self.files) if run_ids is None else [run for run in run_ids if run in self.files]
        by_file: dict[Path, list[str]] = {}
        for run in wanted:
            by_file.setdefault(self.files[run], []).append(run)
        needed = list(dict.fromkeys(name for column in columns for name in _OF_FILE[column]))
        keys = [name for name in ("run_id", "sample_id") if name not in needed]
        found = [read_rows(file, [*needed, *keys], runs) for file, runs in by_file.items()]
        joined = pd.concat(found) if found else pd.DataFrame(columns=[*needed, *keys])
        ordered = joined.sort_values(["run_id", "sample_id"], ignore_index=True)
        return pd.DataFrame({column: _column(column, ordered) for column in columns})


def read(results: Path, tell: Callable[[str], object] = warnings.warn) -> Submissions:
    """The submissions below results/ (or below results/submissions/). A folder that is not there holds none.

    What cannot be read or is retired is left out, and that is told. A run submitted more than once, from several
    machines, appears once: the verified one, else the first. Reads no samples, imports neither torch nor a method,
    opens no store.
    """
    folder = results if results.name == SUBMISSIONS else results / SUBMISSIONS
    problems: list[Problem] = []
    opened = [open_batch(path, problems) for path in batches(folder)]
    for problem in problems:
        tell(f"left out: {problem}; `harness validate {folder}` says more")
    stale, retired = _Staleness(), 0
    found: dict[str, dict[str, Any]] = {}
    for batch in opened:
        for run_id, document in batch.documents.items():
            if is_retired(batch, run_id):
                retired += 1
                continue
            row = _row(batch, run_id, document, stale)
            known = found.get(run_id)
            if known is None or (known["provenance"], row["provenance"]) == (SELF_REPORTED, VERIFIED):
                found[run_id] = row
    if retired:
        tell(f"{retired} submitted runs are retired and not shown: today's code answers their questions otherwise")
    rows = sorted(found.values(), key=lambda row: (row["started_at"], row["run_id"]))
    machines = {doc["machine"]["machine_id"]: doc["machine"] for batch in opened for doc in batch.documents.values()}
    return Submissions(rows, machines, {row["run_id"]: folder / row["batch"] / "samples.parquet" for row in rows})


class _Staleness:
    """Staleness of runs against today's code; each method, model and benchmark is looked up once."""

    def __init__(self) -> None:
        self._today = cache(current_code)

    def of(self, spec: RunSpec, codes: set[str]) -> bool | None:
        if spec.method.startswith("./"):
            return None  # a stranger's file, wherever it lies
        today = self._today(spec.method, spec.model, spec.benchmark)
        return None if today is None else today not in codes


def _row(batch: Batch, run_id: str, document: Mapping[str, Any], stale: _Staleness) -> dict[str, Any]:
    spec = RunSpec(**document["spec"])
    told = {
        **_NO_FIGURES,
        **document["spec"],
        **document["figures"],
        "run_id": run_id,
        "cell_id": spec.cell_id,
        "budget": str(BudgetSpec(spec.budget_kind, spec.budget_value)),
        "sample_limit": spec.limit,
        "machine_id": document["machine"]["machine_id"],
        "started_at": datetime.fromisoformat(document["started_at"]),
        "finished_at": document["finished_at"] and datetime.fromisoformat(document["finished_at"]),
        "stale": stale.of(spec, codes_of(batch, run_id)),
        "provenance": VERIFIED if verified(batch, run_id) else SELF_REPORTED,
        "batch": batch.name,
    }
    return {key: told[key] for key in RUN_COLUMNS}


def _column(name: str, found: pd.DataFrame) -> Any:
    match name:
        case "entering" | "realised_tokens":
            means = name == "realised_tokens"
            known = {words: read_counts(words) for words in found["entering_tokens"].unique()}
            spelled = {words: _mean(counts) if means else list(counts) for words, counts in known.items()}
            return [spelled[words] for words in found["entering_tokens"]]
        case "prefill_flops":
            stages = ("total", "llm", "paper_2ndm")
            columns = zip(*(found[column] for column in _OF_FILE["prefill_flops"]), strict=True)
            return [
                {stage: int(flops) for stage, flops in zip(stages, one, strict=True) if flops == flops}
                for one in columns
            ]
        case "answer":
            known = _answers()
            return [known.get(one) for one in found["sample_id"]]
        case "kept" | "merged":
            return [{} for _ in range(len(found))]
        case "inference_time_s":
            return float("nan")
    return found[name]


def _mean(counts: Sequence[int]) -> float | None:
    return sum(counts) / len(counts) if counts else None


def _answers() -> dict[str, str]:
    """Sample id -> answer of the embedded suite."""
    lines = (SUITE / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row["answer"] for row in map(json.loads, lines)}
