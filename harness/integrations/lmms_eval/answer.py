"""What answering one of lmms-eval's questions gave, before it is scored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from harness.integrations.lmms_metrics import by_filter, means_of, scores_of
from harness.records.records import Record


@dataclass(frozen=True)
class Said:
    """An answer and what it took; the fields are those of `Record`. prompt_tokens: as the LLM saw the prompt."""

    text: str
    entering: tuple[int, ...]
    full_tokens: int = 0
    asked_tokens: int | None = None
    kept: Mapping[str, str] = field(default_factory=dict)
    merged: Mapping[str, str] = field(default_factory=dict)
    flops: Mapping[str, int] = field(default_factory=dict)
    prompt_tokens: int | None = None
    new_tokens: int | None = None

    def record(self, sample_id: str, doc: Mapping[str, Any], target: Any, seconds: float) -> Record:
        """The row of this answer, not scored yet. Questions about one picture are one cluster."""
        return Record(
            sample_id=sample_id,
            cluster=cluster_of(doc, sample_id),
            category=str(doc.get("category") or ""),
            answer=target if isinstance(target, str) else json.dumps(target, default=str),
            prediction=self.text,
            score=None,
            full_tokens=self.full_tokens,
            asked_tokens=self.asked_tokens,
            entering=self.entering,
            kept=self.kept,
            merged=self.merged,
            seconds=seconds,
            flops=self.flops,
        )


def cluster_of(doc: Mapping[str, Any], otherwise: str) -> str:
    """16 hex digits of the sha256 over a document's first picture; `otherwise` where it has none."""
    picture = next(pictures_of(doc), None)
    if picture is None:
        return otherwise
    return hashlib.sha256(f"{picture.mode}{picture.size}".encode() + picture.tobytes()).hexdigest()[:16]


def pictures_of(doc: Mapping[str, Any]) -> Iterator[Image.Image]:
    """The pictures among a document's values, in their order."""
    for value in doc.values():
        yield from (one for one in (value if isinstance(value, list) else [value]) if isinstance(one, Image.Image))


def sample_id(split: str, doc_id: int) -> str:
    """The name of a document in our log: its row number in the split that was chosen."""
    return f"{split}:{doc_id}"


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
