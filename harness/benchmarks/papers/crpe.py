"""CRPE: which relation holds? VLMEvalKit counts a question only if its four circular copies are all right; lmms-eval
counts rows. The two differ by tens of points.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from harness.benchmarks.declaration import LETTER, NUMBER, TEXT, Declaration, Hub, Row, Tsv
from harness.benchmarks.prompts import asked
from harness.benchmarks.scoring.groups import all_right, mean, where
from harness.benchmarks.scoring.letters import by_place, chooses, crpe
from harness.benchmarks.scoring.rule import Metric
from harness.records.records import Sample

DIRECT = "Please answer directly with only the letter of the correct option and nothing else."
_OPTION = re.compile(r"^\s*\(?([A-D])[.)]\s*(.+?)\s*$", re.MULTILINE)


def _read(row: Row) -> Sample:
    text = row["text"].strip()
    body = text.removesuffix(DIRECT).rstrip()
    return Sample(
        id=str(row[NUMBER]),
        cluster=" ".join(body.split("\n")[0].split()),
        category="relation",
        question=asked(body, DIRECT),
        answer=row["correct_option"].strip()[:1],
        images=("image",),
        choices=tuple(option for _, option in _OPTION.findall(body)),
    )


def _read_tsv(row: Row) -> Sample:
    block = str(int(row["index"]) // 4)
    return Sample(
        id=row["index"],
        cluster=block,
        category=row["category"],
        question=row["question"],
        answer=row["answer"],
        images=("image",),
        groups={"circular": block},
    )


def _is(category: str) -> Callable[[Sample], bool]:
    return lambda sample: sample.category == category


def _of_tool(part: str, md5: str, categories: tuple[str, ...]) -> Declaration:
    return Declaration(
        name=f"crpe_{part}_vlmevalkit",
        title=f"CRPE, {part}, as VLMEvalKit asks it",
        source=Tsv(
            f"CRPE_{part.upper()}.tsv",
            ("index", "image", "question", "answer", "category"),
            md5,
            "https://huggingface.co/datasets/petter12321/crpe_vlmevalkit/resolve/main",
        ),
        read=_read_tsv,
        rule=crpe,
        metrics=(
            Metric("crpe_circular4", all_right("circular")),
            Metric("crpe_row_accuracy", mean),
            *(Metric(f"crpe_{kind}_circular4", where(_is(kind), all_right("circular"))) for kind in categories),
        ),
        answers=TEXT,
        cluster="index // 4, the circular copies of one question",
        chance=0.25,
        max_new_tokens=128,
        seen_in="VLMEvalKit",
    )


DECLARATIONS = (
    Declaration(
        name="crpe_relation",
        title="CRPE, relations",
        source=Hub(ids=("nv-njb/CRPE",), split="test", columns=("image", "text", "correct_option")),
        read=_read,
        rule=chooses(by_place),
        metrics=(Metric("crpe_row_accuracy", mean),),
        answers=LETTER,
        cluster="the first line of text",
        chance=0.25,
    ),
    _of_tool("relation", "bad7094cde0b572288f4b119c2d0c656", ("subject", "predicate", "object")),
    _of_tool("exist", "315584e23ac1ff7f8719ed3b7ad90f08", ("exist",)),
)
