"""The reference suite that ships with the project: frozen questions and images; no network, no extra package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import fmean

from PIL.Image import Image

from harness.benchmarks.base import Benchmark
from harness.benchmarks.images import decode
from harness.benchmarks.scoring import exact_match, majority_share
from harness.records.errors import HarnessError
from harness.records.records import Record, Sample

MAX_NEW_TOKENS = 6  # the longest answer has two tokens; a model that rambles is cut here and counts as wrong


@dataclass(frozen=True)
class EmbeddedSuite(Benchmark):
    """A suite in a folder. Scored by exact match; a question's image is its cluster, its family its category."""

    folder: Path

    def load_image(self, sample: Sample, index: int) -> Image:
        name = sample.images[index]
        return decode(self.folder / name, name)

    def prompt(self, sample: Sample) -> str:
        return sample.question

    def score(self, prediction: str, sample: Sample) -> float:
        return exact_match(prediction, sample.answer)

    def metrics(self, records: Iterable[Record]) -> dict[str, float]:
        return {"exact_match": fmean(record.score for record in records)}


def open_suite(name: str, folder: Path, *, quick: bool) -> EmbeddedSuite:
    """The suite in `folder`; quick: only the questions of its quick split. Images are read when asked for.

    Raises HarnessError when questions.jsonl is missing or a line of it cannot be read.
    """
    questions = folder / "questions.jsonl"
    if not questions.is_file():
        raise HarnessError(f"{questions} is missing; reinstall the package, or run `git checkout` in a clone")
    rows = [_row(line, number, questions) for number, line in enumerate(questions.read_text().splitlines(), 1)]
    samples = in_rounds(_sample(row) for row in rows if row["quick"] or not quick)
    return EmbeddedSuite(
        name=name,
        title="Reference suite" + (", quick split" if quick else ""),
        revision=_revision(questions, sorted({row["image"] for row in rows})),
        licence="Apache-2.0; materials in NOTICE",
        max_new_tokens=MAX_NEW_TOKENS,
        samples=samples,
        chance=majority_share(samples),
        folder=folder,
    )


def in_rounds(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """One sample of each category in turn, so that the first few already show all of them."""
    by_category: dict[str, list[Sample]] = {}
    for sample in samples:
        by_category.setdefault(sample.category, []).append(sample)
    rounds = zip_longest(*by_category.values())
    return tuple(sample for one_round in rounds for sample in one_round if sample is not None)


def _row(line: str, number: int, source: Path) -> dict:
    keys = ("id", "image", "family", "question", "answer", "boxes", "quick")
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise HarnessError(f"{source} line {number} is no JSON ({error}); restore the file") from error
    missing = [key for key in keys if key not in row]
    if missing:
        raise HarnessError(f"{source} line {number} lacks {', '.join(missing)}; restore the file")
    return row


def _sample(row: dict) -> Sample:
    return Sample(
        id=row["id"],
        cluster=row["image"],
        category=row["family"],
        question=row["question"],
        answer=row["answer"],
        images=(row["image"],),
        boxes=tuple(tuple(float(edge) for edge in box) for box in row["boxes"]),
    )


def _revision(questions: Path, images: list[str]) -> str:
    """sha256 of the questions and of every image's bytes; a missing image counts as empty (it becomes error rows)."""
    total = hashlib.sha256(questions.read_bytes())
    for image in images:
        path = questions.parent / image
        total.update(image.encode() + b"\0" + (path.read_bytes() if path.is_file() else b"") + b"\0")
    return total.hexdigest()
