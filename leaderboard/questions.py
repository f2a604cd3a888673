"""Questions and images of the embedded suite, which a store does not hold."""

from __future__ import annotations

from functools import lru_cache

from PIL import Image

from harness.reference.paths import SUITE
from harness.reference.suite import Question, load_questions

BENCHMARKS = ("reference", "reference-quick")


@lru_cache(maxsize=1)
def _all() -> dict[str, Question]:
    return {question.id: question for question in load_questions()}


def question_of(benchmark: str, sample_id: str) -> Question | None:
    """The question of a sample; None where its data set does not come with the project."""
    return _all().get(sample_id) if benchmark in BENCHMARKS and (SUITE / "questions.jsonl").is_file() else None


def image_of(question: Question) -> Image.Image | None:
    """The image of a question; None where it is missing."""
    path = SUITE / question.image
    return Image.open(path) if path.is_file() else None
