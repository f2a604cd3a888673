"""Reads the frozen suite with the standard library and Pillow alone."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from harness.reference.paths import SUITE

CHECKSUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Question:
    """One line of questions.jsonl. image: path inside the suite, also the cluster of the question; boxes: (x0, y0,
    x1, y1) pixels, ends exclusive, of what the question is about; majority: the family's most frequent answer; quick:
    in the quick split."""

    id: str
    image: str
    family: str
    question: str
    answer: str
    boxes: tuple[tuple[int, int, int, int], ...]
    quick: bool = False
    majority: str = ""


def load_questions(suite: Path = SUITE) -> list[Question]:
    """All questions of the suite, in its order. Raises FileNotFoundError where there is no suite."""
    lines = (suite / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [_question(json.loads(line)) for line in lines]


def damaged_files(suite: Path = SUITE) -> list[str]:
    """Names of the suite's files that are missing or differ from SHA256SUMS; empty when all is well."""
    damaged = []
    for line in (suite / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        wanted, _, name = line.partition("  ")
        path = suite / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
            damaged.append(name)
    return damaged


def _question(line: dict) -> Question:
    return Question(**{**line, "boxes": tuple(tuple(box) for box in line["boxes"])})
