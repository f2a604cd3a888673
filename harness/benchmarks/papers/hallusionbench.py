"""HallusionBench, its image part: questions that come in sets, each over several figures. Most papers report the mean
of three accuracies: by answer, by figure (all its questions right), by question (right on all its figures).

lmms-eval's own task needs a GPT judge; its offline rule is used here (yes wherever it occurs, else no), under its name.
"""

from __future__ import annotations

from harness.benchmarks.declaration import YES_NO, Declaration, Hub, Row, Tsv
from harness.benchmarks.scoring.groups import all_right, mean, mean_of
from harness.benchmarks.scoring.rule import Metric
from harness.benchmarks.scoring.yes_no import among_words, says, yes_or_else_no
from harness.records.records import Sample


def _sample(row: Row, kind: str, keys: tuple[str, str, str], answer: str) -> Sample:
    story, figure, question = keys
    return Sample(
        id="_".join((row["category"], kind, *keys)),
        cluster=f"{kind}/{story}",
        category=kind,
        question=row["question"],
        answer=answer,
        images=("image",),
        groups={"question": f"{kind}/{story}/{question}", "figure": f"{kind}/{story}/{figure}"},
    )


def _read(row: Row) -> Sample:
    keys = (str(row["set_id"]), str(row["figure_id"]), str(row["question_id"]))
    return _sample(row, row["subcategory"], keys, {"0": "no", "1": "yes"}[str(row["gt_answer"])])


def _read_tsv(row: Row) -> Sample:
    story, figure, question = row["index"].split("_")[-3:]
    return _sample(row, row["l2-category"], (story, figure, question), row["answer"])


METRICS = (
    Metric("hallusion_mean_of_3", mean_of(mean, all_right("figure"), all_right("question"))),
    Metric("hallusion_answer_accuracy", mean),
    Metric("hallusion_figure_accuracy", all_right("figure")),
    Metric("hallusion_question_accuracy", all_right("question")),
)

DECLARATIONS = (
    Declaration(
        name="hallusionbench",
        title="HallusionBench, image part, without a judge",
        source=Hub(
            ids=("lmms-lab-encoder/HallusionBench", "lmms-lab/HallusionBench"),
            split="image",
            columns=(
                "category", "subcategory", "set_id", "figure_id", "question_id", "question", "gt_answer", "image",
            ),
            rows=951,
        ),
        read=_read,
        rule=says(yes_or_else_no),
        metrics=METRICS,
        answers=YES_NO,
        cluster="set_id",
        chance=0.5,
        max_new_tokens=128,
        licence="BSD-3-Clause",
        seen_in="lmms-eval 0.7.2, hb_aggregation_result_intern",
    ),
    Declaration(
        name="hallusionbench_vlmevalkit",
        title="HallusionBench as VLMEvalKit asks it",
        source=Tsv(
            "HallusionBench.tsv",
            ("index", "image", "question", "answer", "category", "l2-category"),
            "0c23ac0dc9ef46832d7a24504f2a0c7c",
        ),
        read=_read_tsv,
        rule=says(among_words),
        metrics=(*METRICS, Metric("hallusion_answer_accuracy_lmms_eval_rule", mean, says(yes_or_else_no))),
        answers=YES_NO,
        cluster="set_id, the third last field of index",
        chance=0.5,
        max_new_tokens=128,
        licence="BSD-3-Clause",
        seen_in="VLMEvalKit",
    ),
)  # fmt: skip
