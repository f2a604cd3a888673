"""Our scorers beside lmms-eval's `process_results`, answer by answer. Every difference is listed, with its reason."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("lmms_eval")

from lmms_eval.api.metrics import anls
from lmms_eval.tasks.chartqa.utils import chartqa_process_results
from lmms_eval.tasks.mme.utils import mme_process_results
from lmms_eval.tasks.mmstar.utils import mmstar_process_results
from lmms_eval.tasks.ocrbench.utils import ocrbench_process_results
from lmms_eval.tasks.pope.utils import pope_process_results
from lmms_eval.tasks.realworldqa.utils import realworldqa_process_results
from lmms_eval.tasks.scienceqa.utils import sqa_process_results
from lmms_eval.tasks.seedbench.utils import seed_aggregation_result, seed_process_result
from lmms_eval.tasks.textvqa.utils import textvqa_process_results
from lmms_eval.tasks.vizwiz_vqa.utils import vizwiz_vqa_process_results

from harness.benchmarks.declaration import NUMBER, PICTURE
from harness.benchmarks.registry import declarations

pytestmark = pytest.mark.proof

ANSWERS = (
    *("yes", "no", "Yes", "No", "YES.", " yes ", "no.", "Yes, there is.", "No, it is not", "y", "n", "maybe", ""),
    *("not sure", "I think yes", "The answer is no", "yes no", "nothing", "Yesterday", "eyes", "A", "B", "a", "b."),
    *("A.", "B. a cat", "(A)", "Answer: B", "A cat", "C", "D", "E", "AB", "A B", "two", "2", "2.0", "The two dogs"),
    *("two dogs", "2 dogs.", "dogs", "don't", "dont", "it's", "its", "red, blue", "red", "Red.", "none", "0", "12%"),
    *(
        "0.12",
        "12",
        "12.5",
        "1,200",
        "1200",
        "1200.0",
        "13",
        "unanswerable",
        "STOP",
        "stop sign",
        "s t o p",
        "ＳＴＯＰ",
    ),
    *("x^2", "x ^ 2", "\\frac{1}{2}", "hello\nworld", "hello world", "helo world", "hola"),
)
PEOPLE = (
    ["red"] * 7 + ["blue"] * 3,
    ["2"] * 2 + ["two"] * 2 + ["dogs"] * 6,
    ["stop", "STOP", "stop sign"] + ["don't"] * 7,
    ["unanswerable"] * 3 + ["hello world"] * 7,
)

Doc = dict[str, Any]
Theirs = Callable[[Doc, str], float]


def scored(process: Callable[[Doc, list[str]], dict[str, Any]], metric: str) -> Theirs:
    """The score of one metric, where it stands in a mapping or alone."""

    def score(doc: Doc, said: str) -> float:
        found = process(doc, [said])[metric]
        return float(found["score"] if isinstance(found, dict) else found)

    return score


def docs(answers: tuple[Any, ...], **more: Any) -> list[Doc]:
    return [{"question_id": 1, "question": "q", "image": None, "answer": answer, **more} for answer in answers]


def of_people(**more: Any) -> list[Doc]:
    return [{"question_id": 1, "image_id": "x", "question": "q", "answers": list(people), **more} for people in PEOPLE]


SEED = {"question_type_id": 1, "data_id": 1, "data_type": "image", "choice_a": "a cat", "choice_b": "red"}
SETS: dict[str, tuple[list[Doc], Theirs]] = {
    "pope": (docs(("yes", "no"), category="random", image_source="x"), scored(pope_process_results, "pope_accuracy")),
    "mme": (docs(("Yes", "No"), category="existence"), scored(mme_process_results, "mme_perception_score")),
    "textvqa_val": (of_people(), scored(textvqa_process_results, "exact_match")),
    "vizwiz_val": (of_people(category="x"), scored(vizwiz_vqa_process_results, "exact_match")),
    "chartqa": (
        docs(("12%", "12", "red", "1200", "0"), type="human_test"),
        scored(chartqa_process_results, "relaxed_overall"),
    ),
    "ocrbench": (
        [
            *docs((["x^2"],), dataset="HME100k", question_type="Handwritten Mathematical Expression Recognition"),
            *docs((["STOP"], ["hello world", "12"]), dataset="IIIT5K", question_type="Regular Text Recognition"),
        ],
        scored(ocrbench_process_results, "ocrbench_accuracy"),
    ),
    "scienceqa_img": (
        docs((0, 1), hint="", choices=["a cat", "a dog"], subject="s"),
        scored(sqa_process_results, "exact_match"),
    ),
    "docvqa_val": (
        [{"questionId": 1, "question": "q", "docId": 2, "answers": a} for a in (["hello world"], ["red"], ["1200"])],
        lambda doc, said: anls(doc["answers"], [said])["anls"],
    ),
    "realworldqa": (docs(("A", "B", "2", "red")), scored(realworldqa_process_results, "exact_match")),
    "mmstar": (
        docs(("A", "B"), index=1, category="math", l2_category="geometry"),
        scored(mmstar_process_results, "average"),
    ),
    "seedbench_image": (
        docs(("A", "B"), choice_c="12", choice_d="dogs", **SEED),
        lambda doc, said: seed_aggregation_result([seed_process_result(doc, [said])["seed_all"]]),
    ),
}

TWO_LETTERS = "of two letters we take the one at the end, they the one at the start"
NO_OPTION = "an article, or a letter within a word, chooses no option: unread"
SMALL = "a small letter is a word's, not an option's: unread"
INTENDED: dict[tuple[str, str, str], str] = {
    **{(name, "A cat", "A"): NO_OPTION for name in ("realworldqa", "mmstar")},
    **{(name, "AB", "B"): NO_OPTION for name in ("realworldqa", "mmstar")},
    **{(name, "A B", answer): TWO_LETTERS for name in ("realworldqa", "mmstar") for answer in "AB"},
    ("seedbench_image", "a", "A"): SMALL,
    ("seedbench_image", "b.", "B"): SMALL,
    ("docvqa_val", " yes ", "['red']"): "similarity is over the text that is compared, without the blanks around it",
}


def differences(name: str) -> set[tuple[str, str, str]]:
    """(benchmark, answer, expected) wherever the two scores differ."""
    found = set()
    for doc in SETS[name][0]:
        sample = declarations()[name].read({**doc, NUMBER: 0, PICTURE: "p"})
        for said in ANSWERS:
            ours = declarations()[name].rule(said, sample) or 0.0
            if abs(ours - SETS[name][1](copy.deepcopy(doc), said)) > 1e-9:
                found.add((name, said, str(doc.get("answer", doc.get("answers")))))
    return found


@pytest.mark.parametrize("name", SETS)
def test_every_difference_from_lmms_eval_is_intended(name: str):
    assert differences(name) == {case for case in INTENDED if case[0] == name}
