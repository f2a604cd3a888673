"""Words and numbers read off charts and documents."""

from __future__ import annotations

import unicodedata

from harness.records.records import Sample

ANLS_THRESHOLD = 0.5
RELAXED_SHARE = 0.05


def relaxed(prediction: str, sample: Sample) -> float:
    """Numbers may differ by 5 % of the expected one; everything else must be equal, case ignored. Source: ChartQA."""
    found, expected = _number(prediction), _number(sample.answer)
    if found is not None and expected:
        return float(abs(found - expected) / abs(expected) <= RELAXED_SHARE)
    return float(prediction.strip().lower() == sample.answer.strip().lower())


def _number(text: str) -> float | None:
    """A float, a percentage as its ratio; None for anything else."""
    text = text.strip()
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def anls(prediction: str, sample: Sample) -> float:
    """Similarity to the nearest accepted answer: 1 - edits / longer length, 0 below one half. Source: DocVQA."""
    similarity = max(1 - _distance(prediction, answer) for answer in sample.answers)
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def _distance(one: str, other: str) -> float:
    """Edit distance over the longer length, case and runs of blanks ignored, in [0, 1]."""
    one, other = (" ".join(text.lower().split()) for text in (one, other))
    return edits(one, other) / max(len(one), len(other), 1)


def edits(one: str, other: str) -> int:
    """Levenshtein distance: insertions, deletions and replacements that turn one text into the other."""
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def contains_answer(prediction: str, sample: Sample) -> float:
    """Whether any accepted answer occurs in the words; formulas (HME100k) without blanks and with their case.

    Full-width characters count as their plain ones. Source: OCRBench, lmms-eval since 2026-07.
    """
    fold = _formula if sample.category == "HME100k" else _line
    return float(any(fold(answer) in fold(prediction) for answer in sample.answers))


def _line(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower().strip().replace("\n", " ")


def _formula(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().replace("\n", " ").replace(" ", "")
