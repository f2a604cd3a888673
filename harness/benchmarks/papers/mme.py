"""MME: two yes/no questions an image; points a category, 200 at most.

Papers quote the ten perception categories (about 1,510 for LLaVA-1.5-7B) or perception and cognition (about 1,860).
"""

from __future__ import annotations

from harness.benchmarks.declaration import YES_NO, Declaration, Hub, Row
from harness.benchmarks.prompts import SHORT, asked
from harness.benchmarks.scoring.groups import all_right, mean, mme_points
from harness.benchmarks.scoring.rule import Metric
from harness.benchmarks.scoring.yes_no import at_the_start, says
from harness.records.records import Sample

PERCEPTION = frozenset(
    ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
)
COGNITION = frozenset(("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"))


def _read(row: Row) -> Sample:
    image = f"{row['category']}/{row['question_id']}"
    return Sample(
        id=image,
        cluster=image,
        category=row["category"],
        question=asked(row["question"].replace(" Please answer yes or no.", "").strip(), SHORT),
        answer=row["answer"],
        images=("image",),
        groups={"pair": image},
    )


DECLARATIONS = (
    Declaration(
        name="mme",
        title="MME, perception and cognition",
        source=Hub(
            ids=("lmms-lab-encoder/MME", "lmms-lab/MME"),
            split="test",
            columns=("question_id", "image", "question", "answer", "category"),
            rows=2374,
        ),
        read=_read,
        rule=says(at_the_start),
        metrics=(
            Metric("mme_perception_points", mme_points(PERCEPTION)),
            Metric("mme_cognition_points", mme_points(COGNITION)),
            Metric("mme_total_points", mme_points(PERCEPTION | COGNITION)),
            Metric("mme_accuracy", mean),
            Metric("mme_both_right", all_right("pair")),
        ),
        answers=YES_NO,
        cluster="question_id",
        chance=0.5,
    ),
)
