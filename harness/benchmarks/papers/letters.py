"""Multiple choice by a letter, one image a question: the sets of lmms-eval, and A-OKVQA."""

from __future__ import annotations

import re
from dataclasses import replace
from string import ascii_uppercase

from harness.benchmarks.declaration import LETTER, NUMBER, TEXT, Declaration, Hub, Row
from harness.benchmarks.prompts import LETTER as DIRECTLY
from harness.benchmarks.prompts import asked, options, present, vlmevalkit
from harness.benchmarks.scoring import letters
from harness.benchmarks.scoring.groups import mean, mean_of_categories, where
from harness.benchmarks.scoring.letters import by_place, chooses
from harness.benchmarks.scoring.rule import Metric
from harness.benchmarks.scoring.text import exact_match
from harness.records.records import Sample

_BRACKETED = re.compile(r"^\s*\(([A-Z])\)\s*", re.MULTILINE)


def _sample(name: str, category: str, stem: str, choices: tuple[str, ...], answer: str, end: str = DIRECTLY) -> Sample:
    """A sample that is its own cluster; its prompt is the stem, the options and `end`, a line each."""
    question = asked(stem, options(choices), end)
    return Sample(name, name, category, question, answer, ("image",), choices=choices)


def _read_ai2d(row: Row) -> Sample:
    answer = ascii_uppercase[int(row["answer"])]
    return _sample(str(row[NUMBER]), "ai2d", row["question"], tuple(row["options"]), answer)


def _read_abench(row: Row) -> Sample:
    choices = tuple(choice for place in range(4) if (choice := present(row[f"option{place}"])))
    return _sample(str(row[NUMBER]), "abench", row["question"], choices, row["correct_choice"], f"{DIRECTLY}\n")


def _read_scienceqa(row: Row) -> Sample:
    hint = present(row["hint"])
    stem = asked(hint and f"Context: {hint}", row["question"])
    return _sample(str(row[NUMBER]), row["subject"], stem, tuple(row["choices"]), ascii_uppercase[int(row["answer"])])


def _read_seedbench(row: Row) -> Sample:
    choices = tuple(str(row[f"choice_{letter}"]) for letter in "abcd")
    kind = str(row["question_type_id"])
    sample = _sample(str(row["question_id"]), kind, row["question"], choices, row["answer"])
    return replace(sample, cluster=str(row["data_id"]), images=("image/0",))


def _read_mmstar(row: Row) -> Sample:
    return _sample(str(row["index"]), row["category"], row["question"], (), row["answer"], DIRECTLY.rstrip("."))


def _read_realworldqa(row: Row) -> Sample:
    return _sample(str(row[NUMBER]), "realworldqa", row["question"], (), row["answer"].strip(), "")


def _realworldqa(prediction: str, sample: Sample) -> float | None:
    """A letter where a letter is expected, else equal text."""
    if sample.answer in tuple("ABCD"):
        return chooses(by_place)(prediction, sample)
    return exact_match(prediction, sample.answer)


def _read_vstar(row: Row) -> Sample:
    stem = _BRACKETED.sub(r"\1. ", row["text"]).removesuffix(DIRECTLY).strip()
    return _sample(str(row["question_id"]), row["category"], stem, (), row["label"])


def _read_hrbench(row: Row) -> Sample:
    choices = tuple(str(row[letter]) for letter in "ABCD")
    end = "Answer the option letter directly."
    sample = _sample(str(row["index"]), row["category"], row["question"], choices, row["answer"], end)
    return replace(sample, cluster=row["question"])


def _read_aokvqa(row: Row) -> Sample:
    choices, answer = tuple(row["choices"]), ascii_uppercase[int(row["correct_choice_idx"])]
    sample = _sample(str(row["question_id"]), "aokvqa", row["question"], choices, answer)
    return replace(sample, question=vlmevalkit(row["question"], choices))


def _hrbench(size: str) -> Declaration:
    return Declaration(
        name=f"hrbench_{size}",
        title=f"HR-Bench {size.upper()}, by the letter (lmms-eval asks GPT)",
        source=Hub(
            ids=("DreamMr/HR-Bench",),
            config="hrbench_version_split",
            split=f"hrbench_{size}",
            columns=("index", "image", "question", "A", "B", "C", "D", "answer", "category"),
            rows=800,
        ),
        read=_read_hrbench,
        rule=chooses(by_place),
        metrics=(
            Metric(f"hrbench_{size}_letter_accuracy", mean),
            Metric(f"hrbench_{size}_single_accuracy", where(lambda sample: sample.category == "single")),
            Metric(f"hrbench_{size}_cross_accuracy", where(lambda sample: sample.category == "cross")),
        ),
        answers=LETTER,
        cluster="question, whose four orders of options are rows",
        chance=0.25,
    )


DECLARATIONS = (
    Declaration(
        name="ai2d",
        title="AI2D, science diagrams",
        source=Hub(
            ("lmms-lab-encoder/ai2d", "lmms-lab/ai2d"), "test", ("question", "options", "answer", "image"), rows=3088
        ),
        read=_read_ai2d,
        rule=chooses(letters.letter_and_period),
        metrics=(Metric("ai2d_exact_letter", mean),),
        answers=LETTER,
        cluster="row",
        chance=0.25,
    ),
    Declaration(
        name="abench_dev",
        title="A-Bench, AI-generated images, dev",
        source=Hub(
            ids=("q-future/A-Bench-HF",),
            split="dev",
            columns=("image", "question", "option0", "option1", "option2", "option3", "correct_choice"),
        ),
        read=_read_abench,
        rule=chooses(letters.mmmu),
        metrics=(Metric("abench_accuracy_unparsed_wrong", mean),),
        answers=LETTER,
        cluster="row",
        chance=0.25,
        max_new_tokens=32,
    ),
    Declaration(
        name="scienceqa_img",
        title="ScienceQA, questions with an image, test",
        source=Hub(
            ids=("lmms-lab-encoder/ScienceQA", "lmms-lab/ScienceQA"),
            config="ScienceQA-IMG",
            split="test",
            columns=("image", "question", "choices", "answer", "hint", "subject"),
            rows=2017,
        ),
        read=_read_scienceqa,
        rule=letters.letter_or_point,
        metrics=(Metric("scienceqa_img_accuracy", mean),),
        answers=LETTER,
        cluster="row",
        chance=0.36,
        licence="CC-BY-NC-SA-4.0",
    ),
    Declaration(
        name="seedbench_image",
        title="SEED-Bench, image part",
        source=Hub(
            ids=("lmms-lab-encoder/SEED-Bench", "lmms-lab/SEED-Bench"),
            split="test",
            columns=(
                "question_id", "question", "image", "choice_a", "choice_b", "choice_c", "choice_d", "answer",
                "data_type", "data_id", "question_type_id",
            ),
            rows=17990,
        ),
        explode=lambda row: [row] if row["data_type"] == "image" else [],
        read=_read_seedbench,
        rule=chooses(letters.first_character),
        metrics=(Metric("seed_image_first_character", mean),),
        answers=LETTER,
        cluster="data_id",
        chance=0.25,
        licence="CC-BY-NC-4.0",
    ),
    Declaration(
        name="mmstar",
        title="MMStar, six abilities",
        source=Hub(("Lin-Chen/MMStar",), "val", ("index", "question", "image", "answer", "category"), rows=1500),
        read=_read_mmstar,
        rule=chooses(by_place),
        metrics=(Metric("mmstar_mean_of_categories", mean_of_categories), Metric("mmstar_accuracy", mean)),
        answers=LETTER,
        cluster="index",
        chance=0.25,
    ),
    Declaration(
        name="realworldqa",
        title="RealWorldQA",
        source=Hub(
            ("lmms-lab-encoder/RealWorldQA", "lmms-lab/RealWorldQA"), "test", ("image", "question", "answer"), rows=765
        ),
        read=_read_realworldqa,
        rule=_realworldqa,
        metrics=(Metric("realworldqa_letter_or_exact", mean),),
        answers=TEXT,
        cluster="row",
        chance=0.25,
    ),
    Declaration(
        name="vstar",
        title="V*Bench, small objects in large pictures",
        source=Hub(
            ids=("lmms-lab-encoder/vstar-bench", "lmms-lab/vstar-bench"),
            split="test",
            columns=("text", "label", "category", "question_id", "image"),
            rows=191,
        ),
        read=_read_vstar,
        rule=chooses(by_place),
        metrics=(
            Metric("vstar_letter_accuracy", mean),
            Metric("vstar_direct_attributes", where(lambda sample: sample.category == "direct_attributes")),
            Metric("vstar_relative_position", where(lambda sample: sample.category == "relative_position")),
        ),
        answers=LETTER,
        cluster="question_id",
        chance=0.25,
    ),
    _hrbench("4k"),
    _hrbench("8k"),
    Declaration(
        name="aokvqa",
        title="A-OKVQA, multiple choice, validation",
        source=Hub(
            ids=("HuggingFaceM4/A-OKVQA",),
            split="validation",
            columns=("image", "question_id", "question", "choices", "correct_choice_idx"),
            rows=1145,
        ),
        read=_read_aokvqa,
        rule=chooses(letters.vlmevalkit),
        metrics=(Metric("aokvqa_choice_accuracy", mean),),
        answers=LETTER,
        cluster="question_id",
        chance=0.25,
        licence="Apache-2.0",
        seen_in="VLMEvalKit's prompt and rule on the authors' data",
    ),
)  # fmt: skip
