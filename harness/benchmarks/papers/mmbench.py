"""MMBench, dev: a question counts only if the model is right under every order of its options (circular copies).

Many papers give the plain accuracy of the first copies instead, here `mmbench_vanilla_accuracy`.
"""

from __future__ import annotations

from harness.benchmarks.declaration import LETTER, Declaration, Hub, Row
from harness.benchmarks.prompts import LETTER as DIRECTLY
from harness.benchmarks.prompts import LETTER_CHINESE, asked, options, present
from harness.benchmarks.scoring.groups import all_right, mean, where
from harness.benchmarks.scoring.letters import chooses, mmbench
from harness.benchmarks.scoring.rule import Metric
from harness.records.records import Sample

COPY = 1_000_000  # a copy's index is that of its question plus a multiple of this


def _reader(instruction: str, gap: str):
    def read(row: Row) -> Sample:
        choices = tuple(present(row[letter]) for letter in "ABCD")
        choices = tuple(choice for choice in choices if choice)
        question = str(int(row["index"]) % COPY)
        stated = " ".join(part for part in (present(row["hint"]), row["question"]) if part)
        return Sample(
            id=str(row["index"]),
            cluster=question,
            category=row["category"],
            question=asked(f"{stated} There are several options:", options(choices)) + gap + instruction,
            answer=row["answer"],
            images=("image",),
            choices=choices,
            groups={"circular": question},
        )

    return read


def _part(config: str, title: str, instruction: str, gap: str, max_new_tokens: int) -> Declaration:
    return Declaration(
        name=f"mmbench_{config}_dev",
        title=title,
        source=Hub(
            ids=("lmms-lab-encoder/MMBench", "lmms-lab/MMBench"),
            config=config,
            split="dev",
            columns=("index", "question", "hint", "answer", "A", "B", "C", "D", "category", "image"),
            rows=4329,
        ),
        read=_reader(instruction, gap),
        rule=chooses(mmbench),
        metrics=(
            Metric("mmbench_circular", all_right("circular")),
            Metric("mmbench_vanilla_accuracy", where(lambda sample: int(sample.id) < COPY)),
            Metric("mmbench_row_accuracy", mean),
        ),
        answers=LETTER,
        cluster="index % 1000000, the circular copies of one question",
        chance=0.25,
        max_new_tokens=max_new_tokens,
        licence="Apache-2.0",
        seen_in="lmms-eval 0.7.2, mmbench_en_dev_static",
    )


DECLARATIONS = (
    _part("en", "MMBench, English, dev", DIRECTLY, "\n\n", 1024),
    _part("cn", "MMBench, Chinese, dev", LETTER_CHINESE, "\n", 256),
)
