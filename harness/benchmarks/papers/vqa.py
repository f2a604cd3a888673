"""Questions that ten people answered: VQAv2, TextVQA with and without OCR tokens in the prompt, VizWiz.

LLaVA's own TextVQA script, which most pruning papers used, puts the OCR tokens in the prompt; it is worth about 12
points, hence two benchmarks.
"""

from __future__ import annotations

from harness.benchmarks.declaration import TEXT, Declaration, Hub, Row
from harness.benchmarks.prompts import SHORT, UNANSWERABLE, asked
from harness.benchmarks.scoring.groups import answers_with, mean
from harness.benchmarks.scoring.rule import Metric
from harness.benchmarks.scoring.vqa import evalai, soft_accuracy, words
from harness.records.records import Sample


def _answered(row: Row, image: str, category: str, question: str, answers: list[str]) -> Sample:
    return Sample(
        id=str(row["question_id"]),
        cluster=str(image),
        category=category,
        question=question,
        answer=max(answers, key=answers.count),
        images=("image",),
        answers=tuple(answers),
    )


def _read_vqav2(row: Row) -> Sample:
    answers = [one["answer"] for one in row["answers"]]
    return _answered(row, row["image_id"], row["answer_type"], asked(row["question"], SHORT), answers)


def _read_textvqa(row: Row) -> Sample:
    question = asked(row["question"].capitalize(), SHORT)
    return _answered(row, row["image_id"], "textvqa", question, row["answers"])


def _read_textvqa_ocr(row: Row) -> Sample:
    hint = f"Reference OCR token: {', '.join(row['ocr_tokens'])}"
    question = asked(row["question"].capitalize(), hint, SHORT)
    return _answered(row, row["image_id"], "textvqa", question, row["answers"])


def _read_vizwiz(row: Row) -> Sample:
    question = asked(row["question"].capitalize(), UNANSWERABLE, SHORT)
    return _answered(row, row["question_id"], row["category"], question, row["answers"])


TEXTVQA = ("image_id", "question_id", "question", "answers", "image")

DECLARATIONS = (
    Declaration(
        name="vqav2_val",
        title="VQAv2, validation (the only split with answers; use --limit)",
        source=Hub(
            ids=("lmms-lab-encoder/VQAv2", "lmms-lab/VQAv2"),
            split="validation",
            columns=("question", "question_id", "answer_type", "image_id", "answers", "image"),
            rows=214354,
        ),
        read=_read_vqav2,
        rule=soft_accuracy(words),
        metrics=(Metric("vqav2_soft_accuracy", mean),),
        answers=TEXT,
        cluster="image_id",
        chance=0.0,
        licence="CC-BY-4.0",
    ),
    Declaration(
        name="textvqa_val",
        title="TextVQA, validation, no OCR tokens in the prompt",
        source=Hub(("lmms-lab-encoder/textvqa", "lmms-lab/textvqa"), "validation", TEXTVQA, rows=5000),
        read=_read_textvqa,
        rule=soft_accuracy(evalai),
        metrics=(Metric("textvqa_soft_accuracy", mean),),
        answers=TEXT,
        cluster="image_id",
        chance=0.0,
        licence="CC-BY-4.0",
    ),
    Declaration(
        name="textvqa_val_ocr",
        title="TextVQA, validation, OCR tokens in the prompt",
        source=Hub(("lmms-lab-encoder/textvqa", "lmms-lab/textvqa"), "validation", (*TEXTVQA, "ocr_tokens"), rows=5000),
        read=_read_textvqa_ocr,
        rule=soft_accuracy(evalai),
        metrics=(Metric("textvqa_ocr_soft_accuracy", mean),),
        answers=TEXT,
        cluster="image_id",
        chance=0.0,
        licence="CC-BY-4.0",
    ),
    Declaration(
        name="vizwiz_val",
        title="VizWiz-VQA, validation",
        source=Hub(
            ids=("lmms-lab-encoder/VizWiz-VQA", "lmms-lab/VizWiz-VQA"),
            split="val",
            columns=("question_id", "image", "question", "answers", "category"),
            rows=4319,
        ),
        read=_read_vizwiz,
        rule=soft_accuracy(evalai),
        metrics=(
            Metric("vizwiz_soft_accuracy", mean),
            Metric("vizwiz_unanswerable_ratio", answers_with("unanswerable")),
        ),
        answers=TEXT,
        cluster="question_id",
        chance=0.0,
        licence="CC-BY-4.0",
    ),
)
