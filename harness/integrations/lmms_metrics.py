"""lmms-eval's metrics: what it reports of a task, and which of them are the mean of their rows.

A row's value is taken for a score only where the metric is one that is a mean by definition and that mean is what was
reported; POPE's F1 and precision carry the same 0 or 1 in every row and are no means of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.integrations.reported import agrees
from harness.records.records import Record

MEANS = (
    "exact_match", "acc", "accuracy", "pope_accuracy", "anls", "relaxed_overall", "ocrbench_accuracy", "mmmu_acc",
    "textvqa_exact_match", "average",
)  # fmt: skip


def by_filter(values: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Filter -> metric -> value, filters in the order of their first occurrence; standard errors left out."""
    found: dict[str, dict[str, float]] = {}
    for key, value in values.items():
        metric, comma, name = key.rpartition(",")
        if comma and not metric.rpartition("_stderr")[1] and isinstance(value, int | float):
            found.setdefault(name, {})[metric] = float(value)
    return found


def means_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The metrics that are means by definition: those known as such, and those that a task's config calls so."""
    listed = [one for one in config.get("metric_list") or () if isinstance(one, Mapping)]
    return MEANS + tuple(str(one.get("metric")) for one in listed if one.get("aggregation") == "mean")


def scores_of(
    rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, float], means: Iterable[str] = MEANS
) -> list[float] | None:
    """One score in [0, 1] a row, of the first metric that is their mean; None where none is."""
    for metric in means:
        scores = [_score(row.get(metric)) for row in rows]
        known = [score for score in scores if score is not None]
        if metric in metrics and len(known) == len(rows) and agrees(known, metrics[metric]):
            return known
    return None


def _score(value: Any) -> float | None:
    """A number, or the `score` of a mapping, in [0, 1]."""
    value = value.get("score") if isinstance(value, Mapping) else value
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None


@dataclass(frozen=True)
class ScoredTask:
    """What their scoring says of a task. scores: sample id -> score, empty where no metric is a mean of rows."""

    metrics: Mapping[str, float]
    scores: Mapping[str, float]

    def scored(self, records: Mapping[str, Record]) -> Iterator[Record]:
        """The records with their scores."""
        for name, record in records.items():
            yield replace(record, score=self.scores.get(name))


def outcome_of(results: Mapping[str, Any], task: str) -> ScoredTask:
    """The outcome of one task from what `simple_evaluate` gives. Of several filters the first with scores counts."""
    rows, known = results["samples"][task], by_filter(results["results"][task])
    means, split = means_of(results["configs"][task]), _split(results["configs"][task])
    size = len(rows) // max(len(known), 1)
    scores: Mapping[str, float] = {}
    for place, metrics in enumerate(known.values()):
        block = rows[place * size : (place + 1) * size]
        found = scores_of(block, metrics, means)
        if found is not None and not scores:
            scores = {f"{split}:{row['doc_id']}": one for row, one in zip(block, found, strict=True)}
    return ScoredTask(_flat(known), scores)


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
