"""MMMU, validation: college questions, some over several images, some with a free answer."""

from __future__ import annotations

import ast
import re

from harness.benchmarks.declaration import TEXT, Declaration, Hub, Row
from harness.benchmarks.prompts import LETTER, SHORT, options
from harness.benchmarks.scoring.groups import mean, where
from harness.benchmarks.scoring.letters import chooses, mmmu
from harness.benchmarks.scoring.rule import Metric
from harness.benchmarks.scoring.text import among_words_of
from harness.records.records import Sample

_REFERENCE = re.compile(r"<image (\d)>")


def _read(row: Row) -> Sample:
    choices = tuple(str(choice) for choice in ast.literal_eval(row["options"]))
    question = row["question"]
    images = dict.fromkeys(_REFERENCE.findall(question + " ".join(choices)))
    is_choice = row["question_type"] == "multiple-choice"
    accepted = _accepted(row["answer"])
    return Sample(
        id=row["id"],
        cluster=row["id"],
        category=row["id"].split("_", 1)[-1].rsplit("_", 1)[0],
        question=f"{question}\n{options(choices)}\n\n{LETTER}" if is_choice else f"{question}\n\n{SHORT}",
        answer=accepted[0],
        images=tuple(f"image_{number}" for number in images) or ("image_1",),
        choices=choices if is_choice else (),
        answers=accepted,
    )


def _accepted(answer: str) -> tuple[str, ...]:
    """An answer, or the several of a list in Python's notation: "['1/2', '0.5']"."""
    listed = ast.literal_eval(answer) if answer.startswith("[") else [answer]
    return tuple(map(str, listed))


def _rule(prediction: str, sample: Sample) -> float | None:
    return chooses(mmmu)(prediction, sample) if sample.choices else among_words_of(prediction, sample)


DECLARATIONS = (
    Declaration(
        name="mmmu_val",
        title="MMMU, validation",
        source=Hub(
            ids=("lmms-lab-encoder/MMMU", "lmms-lab/MMMU"),
            split="validation",
            columns=("id", "question", "options", "answer", "question_type", *(f"image_{n}" for n in range(1, 8))),
            images=tuple(f"image_{n}" for n in range(1, 8)),
            rows=900,
        ),
        read=_read,
        rule=_rule,
        metrics=(
            Metric("mmmu_accuracy_unparsed_wrong", mean),
            Metric("mmmu_choice_accuracy", where(lambda sample: bool(sample.choices))),
            Metric("mmmu_several_images_accuracy", where(lambda sample: len(sample.images) > 1)),
        ),
        answers=TEXT,
        cluster="id",
        chance=0.25,
        max_new_tokens=128,
        licence="Apache-2.0",
    ),
)
