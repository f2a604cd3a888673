"""RefCOCO, validation: where is what this phrase describes? The task that pruning hurts most.

Boxes are shares of the image. A model that answers in pixels (Qwen-VL) scores near 0 here, pruned or not.
"""

from __future__ import annotations

from harness.benchmarks.declaration import BOX, Declaration, Hub, Row
from harness.benchmarks.prompts import BOX as ASK
from harness.benchmarks.scoring.boxes import hits
from harness.benchmarks.scoring.groups import mean
from harness.benchmarks.scoring.rule import Metric
from harness.records.records import Sample


def _by_phrase(row: Row) -> list[Row]:
    return [{**row, "phrase": phrase, "number": number} for number, phrase in enumerate(row["answer"])]


def _read(row: Row) -> Sample:
    (x, y, width, height), (image_width, image_height) = row["bbox"], row["size"]
    box = (x / image_width, y / image_height, (x + width) / image_width, (y + height) / image_height)
    return Sample(
        id=f"{row['question_id']}/{row['number']}",
        cluster=str(row["question_id"]),
        category="refcoco",
        question=ASK + row["phrase"],
        answer="[" + ", ".join(f"{edge:.4f}" for edge in box) + "]",
        images=("image",),
        boxes=((x, y, x + width, y + height),),
    )


DECLARATIONS = (
    Declaration(
        name="refcoco_val",
        title="RefCOCO, validation",
        source=Hub(("lmms-lab-encoder/RefCOCO", "lmms-lab/RefCOCO"), "val", ("question_id", "image", "answer", "bbox")),
        sized=True,
        explode=_by_phrase,
        read=_read,
        rule=hits,
        metrics=(Metric("refcoco_accuracy_iou50", mean),),
        answers=BOX,
        cluster="question_id",
        chance=0.0,
        max_new_tokens=64,
    ),
)
