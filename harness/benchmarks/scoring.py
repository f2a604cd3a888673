"""Turning a model's words into a score."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from harness.records import Sample


def normalise(text: str) -> str:
    """Lower case, no surrounding space, no trailing period: " Red. " -> "red"."""
    return text.strip().lower().rstrip(".").rstrip()


def exact_match(prediction: str, answer: str) -> float:
    """1.0 if both are equal after `normalise`, else 0.0."""
    return float(normalise(prediction) == normalise(answer))


def majority_share(samples: Iterable[Sample]) -> dict[str, float]:
    """Category -> the share of its samples whose answer is the commonest one, in (0, 1]."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        answers[sample.category][normalise(sample.answer)] += 1
    return {category: max(counts.values()) / counts.total() for category, counts in sorted(answers.items())}
