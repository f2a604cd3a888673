"""Multiple choice as VLMEvalKit asks it: one format, one prompt, one rule, a table for each benchmark."""

from __future__ import annotations

from harness.benchmarks.declaration import LETTER, PICTURE, Declaration, Row, Tsv
from harness.benchmarks.prompts import present, vlmevalkit
from harness.benchmarks.scoring.groups import mean, mean_of_categories
from harness.benchmarks.scoring.letters import chooses, letter_and_period
from harness.benchmarks.scoring.letters import vlmevalkit as infer
from harness.benchmarks.scoring.rule import Metric
from harness.records.records import Sample

COLUMNS = ("index", "image", "question", "A", "B", "C", "D", "answer")
HUB = "https://huggingface.co/datasets"


def _read(row: Row) -> Sample:
    choices = tuple(choice for letter in "ABCD" if (choice := present(row[letter])))
    return Sample(
        id=row["index"],
        cluster=row[PICTURE],
        category=row.get("category", "all"),
        question=vlmevalkit(row["question"], choices, present(row.get("hint"))),
        answer=row["answer"],
        images=("image",),
        choices=choices,
    )


def _table(name: str, title: str, metric: str, source: Tsv, licence: str = "") -> Declaration:
    categories = (Metric(f"{metric}_mean_of_categories", mean_of_categories),) if "category" in source.columns else ()
    return Declaration(
        name=name,
        title=title,
        source=source,
        read=_read,
        rule=chooses(infer),
        metrics=(
            Metric(f"{metric}_infer_accuracy", mean),
            *categories,
            Metric(f"{metric}_exact_letter_lmms_eval_rule", mean, chooses(letter_and_period)),
        ),
        answers=LETTER,
        cluster="image",
        chance=0.25,
        max_new_tokens=128,
        licence=licence,
        seen_in="VLMEvalKit, exact matching",
    )


DECLARATIONS = (
    _table("ai2d_vlmevalkit", "AI2D, labels masked", "ai2d_mask", Tsv("AI2D_TEST.tsv", COLUMNS)),
    _table("ai2d_no_mask_vlmevalkit", "AI2D, labels visible", "ai2d_no_mask", Tsv("AI2D_TEST_NO_MASK.tsv", COLUMNS)),
    _table(
        "abench_vlmevalkit",
        "A-Bench, AI-generated images, validation",
        "abench_val",
        Tsv(
            "A-bench_VAL.tsv",
            COLUMNS,
            "218563ec50d34bb336c814143a5bb9c1",
            f"{HUB}/zhangzicheng/abench_tsv/resolve/main",
        ),
    ),
    _table(
        "aesbench_val",
        "AesBench, image aesthetics; validation, a toy version by its authors' word",
        "aesbench_val",
        Tsv(
            "AesBench_VAL.tsv",
            (*COLUMNS, "category"),
            "3edb0c319e9187aa0b97fe7a11700a8c",
            f"{HUB}/VLMEval/AesBench/resolve/main",
        ),
    ),
    _table(
        "aesbench_test",
        "AesBench, image aesthetics; test, over 20 times as large as validation",
        "aesbench_test",
        Tsv(
            "AesBench_TEST.tsv",
            (*COLUMNS, "category"),
            "58b1f7ba2cc32e1d68896d6ee716bbf8",
            f"{HUB}/VLMEval/AesBench/resolve/main",
        ),
    ),
    _table(
        "aokvqa_vlmevalkit",
        "A-OKVQA",
        "aokvqa",
        Tsv("a-okvqa.tsv", COLUMNS, folder=f"{HUB}/Allen8/A-OKVQA/resolve/main"),
        "Apache-2.0",
    ),
    _table(
        "taskmeanything",
        "TaskMeAnything v1, image questions, random part",
        "taskmeanything",
        Tsv(
            "TaskMeAnything-v1-imageqa-random.tsv",
            (*COLUMNS, "category"),
            "023fef69e2ca21827afb77c5ec3bc889",
            f"{HUB}/weikaih/TaskMeAnything-v1-imageqa-random/resolve/main",
        ),
    ),
    _table("scienceqa_vlmevalkit", "ScienceQA, test", "scienceqa_test", Tsv("ScienceQA_TEST.tsv", COLUMNS)),
    _table("seedbench_vlmevalkit", "SEED-Bench, image part", "seed_image", Tsv("SEEDBench_IMG.tsv", COLUMNS)),
    _table(
        "seedbench2plus_vlmevalkit",
        "SEED-Bench-2-Plus, text-rich pictures",
        "seed2plus",
        Tsv("SEEDBench2_Plus.tsv", COLUMNS),
    ),
)
