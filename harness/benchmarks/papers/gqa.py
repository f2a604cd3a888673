"""GQA, test-dev balanced: 12,578 questions over 398 images that lie in a table of their own."""

from __future__ import annotations

from harness.benchmarks.declaration import TEXT, Declaration, Hub, Row
from harness.benchmarks.prompts import SHORT, asked
from harness.benchmarks.scoring.groups import mean
from harness.benchmarks.scoring.rule import Metric
from harness.benchmarks.scoring.text import same_bare
from harness.records.records import Sample

IDS = ("lmms-lab-encoder/GQA", "lmms-lab/GQA")


def _read(row: Row) -> Sample:
    return Sample(
        id=row["id"],
        cluster=row["imageId"],
        category="gqa",
        question=asked(row["question"], SHORT),
        answer=row["answer"],
        images=("image",),
    )


DECLARATIONS = (
    Declaration(
        name="gqa",
        title="GQA, test-dev balanced",
        source=Hub(
            IDS, "testdev", ("id", "imageId", "question", "answer"), (), "testdev_balanced_instructions", rows=12578
        ),
        pictures=Hub(IDS, "testdev", ("id", "image"), config="testdev_balanced_images", rows=398),
        joined="imageId",
        read=_read,
        rule=same_bare,
        metrics=(Metric("gqa_exact_match", mean),),
        answers=TEXT,
        cluster="imageId",
        chance=0.0,
        licence="CC-BY-4.0",
    ),
)
