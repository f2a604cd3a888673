"""A run that another tool reports, and the log that it becomes: the store and the board then know it like any other.

Such a run has no budget that anyone measured. Its status is `reported` and its budget kind `unknown`: it is listed, and
compared question by question with others of its kind, but never ranked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.records.figures import REPORTED, Figures
from harness.records.provenance import sample_ids_hash
from harness.records.records import Environment, Record, digest
from harness.records.run_spec import RunSpec
from harness.stats import accuracy_interval
from harness.store.database import Store
from harness.store.log_writer import RunLog

AGREEMENT = 1e-6  # a mean of scores and the reported value are one metric within this


@dataclass(frozen=True)
class Answer:
    """One answered question. asked: the prompt as far as it is known; score: in [0, 1]; error: nothing was answered."""

    id: str
    asked: str
    expected: str
    said: str
    score: float
    error: str | None = None


@dataclass(frozen=True)
class Reported:
    """One tool's result on one benchmark. metrics: as reported, in the tool's own units. answers: () = only metrics.

    settings: what is known of the model's arguments. files: where it was read. limit: None unless rows were left out.
    """

    tool: str
    model: str
    benchmark: str
    metrics: Mapping[str, float]
    n: int
    files: Sequence[Path]
    answers: Sequence[Answer] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    tool_version: str = ""
    limit: int | None = None

    @property
    def spec(self) -> RunSpec:
        """Its identity: the same files read twice are one run."""
        content = [hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files]
        questions = digest([(answer.id, answer.asked, answer.expected) for answer in self.answers])
        return RunSpec(
            method=f"reported:{self.tool}",
            settings={**self.settings, "files_sha256": content},
            model=self.model,
            model_revision="unknown",
            benchmark=self.benchmark,
            benchmark_revision=questions,
            budget_kind="unknown",
            budget_value=None,
            seed=0,
            limit=self.limit,
            sample_ids=sample_ids_hash(answer.id for answer in self.answers),
            dtype="unknown",
            attention="unknown",
            image_backend="unknown",
            device="unknown",
            code=self.tool_version,
        )

    @property
    def figures(self) -> Figures:
        """Accuracy where there are answers, and all metrics."""
        known: dict[str, float] = {}
        if self.answers:
            found = accuracy_interval([one.score for one in self.answers], [one.id for one in self.answers])
            known = {"accuracy": found.value, "accuracy_low": found.low, "accuracy_high": found.high}
        errors = sum(one.error is not None for one in self.answers)
        return Figures(
            REPORTED, f"reported by {self.tool}", n=self.n, errors=errors, metrics=dict(self.metrics), **known
        )


def agrees(scores: Sequence[float], reported: float) -> bool:
    """Whether a reported metric is the mean of these scores."""
    return bool(scores) and abs(fmean(scores) - reported) <= AGREEMENT


def keep(reported: Reported, store: Store) -> str:
    """Put a reported run into a store; gives its run id. One that is there already stays as it is."""
    spec = reported.spec
    path = store.log_path(spec.run_id)
    if not path.exists():
        here = Environment("unknown", {"source": reported.tool, "files": [file.name for file in reported.files]})
        with RunLog.open(path, spec, here) as log:
            log.append(*map(_record, reported.answers))
            log.finish(reported.figures)
    store.ingest(path)
    return spec.run_id


def _record(answer: Answer) -> Record:
    return Record(
        sample_id=answer.id,
        cluster=answer.id,
        category="",
        answer=answer.expected,
        prediction=answer.said,
        score=answer.score,
        full_tokens=0,
        asked_tokens=None,
        entering=(),
        error=answer.error,
    )
