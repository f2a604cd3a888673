"""Answers compared as text."""

from __future__ import annotations

import string
from collections import Counter, defaultdict
from collections.abc import Iterable

from harness.records.records import Sample

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, no surrounding space, no trailing period: " Red. " -> "red"."""
    return text.strip().lower().rstrip(".").rstrip()


def exact_match(prediction: str, answer: str) -> float:
    """1.0 if both are equal after `normalise`, else 0.0."""
    return float(normalise(prediction) == normalise(answer))


def bare(text: str) -> str:
    """Lower case, no punctuation, no surrounding space: "Don't." -> "dont". Source: lmms-eval's exact_match flags."""
    return text.lower().translate(_NO_PUNCTUATION).strip()


def same_bare(prediction: str, sample: Sample) -> float:
    """Whether the whole answer equals the expected one, case and punctuation ignored."""
    return float(bare(prediction) == bare(sample.answer))


def any_exact(prediction: str, sample: Sample) -> float:
    """Whether the answer equals any accepted one after `normalise`."""
    return max(exact_match(prediction, answer) for answer in sample.answers or (sample.answer,))


def among_words_of(prediction: str, sample: Sample) -> float:
    """Whether an accepted answer stands in the answer's last line, as whole words or as an equal number."""
    last = (prediction.strip().splitlines() or [""])[-1]
    padded = f" {' '.join(normalise(last).split())} "
    return float(any(f" {normalise(one)} " in padded or _same_number(last, one) for one in sample.answers))


def _same_number(one: str, other: str) -> bool:
    """Whether both are numbers that agree to two decimals: "1,200" and "1200.0"."""
    try:
        return round(float(one.replace(",", "")), 2) == round(float(other.replace(",", "")), 2)
    except ValueError:
        return False


def majority_share(samples: Iterable[Sample]) -> dict[str, float]:
    """Category -> the share of its samples whose answer is the commonest one, in (0, 1]."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        answers[sample.category][normalise(sample.answer)] += 1
    return {category: max(counts.values()) / counts.total() for category, counts in sorted(answers.items())}
