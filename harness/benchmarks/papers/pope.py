"""POPE: is there such an object in the picture? Papers give accuracy or F1; both are here, each with its rule."""

from __future__ import annotations

from collections.abc import Sequence

from harness.benchmarks.declaration import PICTURE, YES_NO, Declaration, Hub, Row, Tsv
from harness.benchmarks.prompts import SHORT, asked
from harness.benchmarks.scoring.groups import Aggregate, f1, mean, precision, recall, where
from harness.benchmarks.scoring.rule import Metric, Scored
from harness.benchmarks.scoring.yes_no import among_words, says, whole_word
from harness.records.records import Sample


def _read(row: Row) -> Sample:
    return Sample(
        id=f"{row['category']}/{row['question_id']}",
        cluster=row["image_source"],
        category=row["category"],
        question=asked(row["question"].strip(), SHORT),
        answer=row["answer"],
        images=("image",),
    )


def _read_tsv(row: Row) -> Sample:
    return Sample(
        id=row["index"],
        cluster=row[PICTURE],
        category=row["category"],
        question=row["question"],
        answer=row["answer"],
        images=("image",),
    )


def in_each_category(aggregate: Aggregate) -> Aggregate:
    """A row that stands in several categories ("popular,random") counts once in each, as VLMEvalKit explodes them."""

    def over(rows: Sequence[Scored]) -> float:
        return aggregate([row for row in rows for _ in row.sample.category.split(",")])

    return over


DECLARATIONS = (
    Declaration(
        name="pope",
        title="POPE, object hallucination",
        source=Hub(
            ids=("lmms-lab-encoder/POPE", "lmms-lab/POPE"),
            split="test",
            columns=("question_id", "question", "answer", "image_source", "category", "image"),
            rows=9000,
        ),
        read=_read,
        rule=says(whole_word),
        metrics=(
            Metric("pope_accuracy", mean),
            Metric("pope_f1", f1),
            Metric("pope_precision", precision),
            Metric("pope_recall", recall),
            Metric("pope_f1_vlmevalkit_rule", f1, says(among_words)),
        ),
        answers=YES_NO,
        cluster="image_source",
        chance=0.5,
        max_new_tokens=128,
        licence="MIT",
    ),
    Declaration(
        name="pope_vlmevalkit",
        title="POPE as VLMEvalKit asks it",
        source=Tsv(
            "POPE.tsv", ("index", "image", "question", "answer", "category"), "c12f5acb142f2ef1f85a26ba2fbe41d5"
        ),
        read=_read_tsv,
        rule=says(among_words),
        metrics=(
            Metric("pope_f1", in_each_category(f1)),
            Metric("pope_accuracy", in_each_category(mean)),
            Metric("pope_precision", in_each_category(precision)),
            Metric("pope_recall", in_each_category(recall)),
            *(
                Metric(f"pope_{kind}_f1", where(lambda sample, kind=kind: kind in sample.category.split(","), f1))
                for kind in ("adversarial", "popular", "random")
            ),
            Metric("pope_accuracy_lmms_eval_rule", in_each_category(mean), says(whole_word)),
        ),
        answers=YES_NO,
        cluster="image",
        chance=0.5,
        max_new_tokens=128,
        licence="MIT",
        seen_in="VLMEvalKit",
    ),
)
