"""What lmms-eval's scoring says of one task, joined in memory with the records of our log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.bridge.said import sample_id
from harness.imports.lmms_metrics import by_filter, means_of, scores_of
from harness.records.records import Record


@dataclass(frozen=True)
class Outcome:
    """What their scoring says of a task. scores: sample id -> score, empty where no metric is a mean of rows."""

    metrics: Mapping[str, float]
    scores: Mapping[str, float]

    def scored(self, records: Mapping[str, Record]) -> Iterator[Record]:
        """The records with their scores."""
        for name, record in records.items():
            yield replace(record, score=self.scores.get(name))


def outcome_of(results: Mapping[str, Any], task: str) -> Outcome:
    """The outcome of one task from what `simple_evaluate` gives. Of several filters the first with scores counts."""
    rows, known = results["samples"][task], by_filter(results["results"][task])
    means, split = means_of(results["configs"][task]), _split(results["configs"][task])
    size = len(rows) // max(len(known), 1)
    scores: Mapping[str, float] = {}
    for place, metrics in enumerate(known.values()):
        block = rows[place * size : (place + 1) * size]
        found = scores_of(block, metrics, means)
        if found is not None and not scores:
            scores = {sample_id(split, row["doc_id"]): one for row, one in zip(block, found, strict=True)}
    return Outcome(_flat(known), scores)


def _flat(known: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Metric -> value; where there are several filters, "metric,filter" as lmms-eval writes it."""
    several = len(known) > 1
    return {
        f"{metric},{name}" if several else metric: value
        for name, metrics in known.items()
        for metric, value in metrics.items()
    }


def _split(config: Mapping[str, Any]) -> str:
    return config.get("test_split") or config["validation_split"]
