"""Charts, documents, and text in pictures: ChartQA, DocVQA, InfographicVQA, OCRBench."""

from __future__ import annotations

from collections.abc import Sequence

from harness.benchmarks.declaration import NUMBER, TEXT, Declaration, Hub, Row
from harness.benchmarks.prompts import SHORT, asked
from harness.benchmarks.scoring.documents import anls, contains_answer, relaxed
from harness.benchmarks.scoring.groups import mean, where
from harness.benchmarks.scoring.rule import Metric, Scored
from harness.records.records import Sample


def _read_chartqa(row: Row) -> Sample:
    return Sample(
        id=str(row[NUMBER]),
        cluster=str(row[NUMBER]),
        category=row["type"].removesuffix("_test"),
        question=asked(row["question"], "Answer the question with a single word."),
        answer=row["answer"],
        images=("image",),
    )


def _read_document(row: Row) -> Sample:
    return Sample(
        id=str(row["questionId"]),
        cluster=str(row.get("docId", row["questionId"])),
        category="document",
        question=asked(row["question"], SHORT),
        answer=row["answers"][0],
        images=("image",),
        answers=tuple(row["answers"]),
    )


def _read_ocrbench(row: Row) -> Sample:
    return Sample(
        id=str(row[NUMBER]),
        cluster=str(row[NUMBER]),
        category=row["dataset"] if row["dataset"] == "HME100k" else row["question_type"],
        question=row["question"],
        answer=row["answer"][0],
        images=("image",),
        answers=tuple(row["answer"]),
    )


def _points_of_1000(rows: Sequence[Scored]) -> float:
    return 1000 * mean(rows)


DECLARATIONS = (
    Declaration(
        name="chartqa",
        title="ChartQA, test",
        source=Hub(
            ("lmms-lab-encoder/ChartQA", "lmms-lab/ChartQA"), "test", ("type", "question", "answer", "image"), rows=2500
        ),
        read=_read_chartqa,
        rule=relaxed,
        metrics=(
            Metric("chartqa_relaxed_accuracy", mean),
            Metric("chartqa_human_relaxed_accuracy", where(lambda sample: sample.category == "human")),
            Metric("chartqa_augmented_relaxed_accuracy", where(lambda sample: sample.category == "augmented")),
        ),
        answers=TEXT,
        cluster="row (the data set names no image)",
        chance=0.0,
        licence="GPL-3.0",
    ),
    Declaration(
        name="docvqa_val",
        title="DocVQA, validation",
        source=Hub(
            ids=("lmms-lab-encoder/DocVQA", "lmms-lab/DocVQA"),
            config="DocVQA",
            split="validation",
            columns=("questionId", "question", "docId", "answers", "image"),
            rows=5349,
        ),
        read=_read_document,
        rule=anls,
        metrics=(Metric("docvqa_anls", mean),),
        answers=TEXT,
        cluster="docId",
        chance=0.0,
        max_new_tokens=32,
    ),
    Declaration(
        name="infographicvqa_val",
        title="InfographicVQA, validation",
        source=Hub(
            ids=("lmms-lab-encoder/DocVQA", "lmms-lab/DocVQA"),
            config="InfographicVQA",
            split="validation",
            columns=("questionId", "question", "answers", "image"),
            rows=2801,
        ),
        read=_read_document,
        rule=anls,
        metrics=(Metric("infographicvqa_anls", mean),),
        answers=TEXT,
        cluster="questionId",
        chance=0.0,
        max_new_tokens=32,
    ),
    Declaration(
        name="ocrbench",
        title="OCRBench, 1,000 questions",
        source=Hub(
            ("echo840/OCRBench",), "test", ("dataset", "question", "question_type", "answer", "image"), rows=1000
        ),
        read=_read_ocrbench,
        rule=contains_answer,
        metrics=(Metric("ocrbench_points_of_1000", _points_of_1000), Metric("ocrbench_contains_accuracy", mean)),
        answers=TEXT,
        cluster="row",
        chance=0.0,
        max_new_tokens=128,
    ),
)
