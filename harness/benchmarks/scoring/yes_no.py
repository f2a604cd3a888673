"""Yes or no, read in the four ways that tools read it. The expected answer is "yes" or "no", in any case."""

from __future__ import annotations

import string
from collections.abc import Callable

from harness.benchmarks.scoring.rule import Rule
from harness.records.records import Sample

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
YES, NO = "yes", "no"


def whole_word(prediction: str) -> str | None:
    """The answer if it is nothing but yes or no: "Yes " is, "yes." is not. Source: lmms-eval, POPE."""
    word = prediction.lower().strip()
    return word if word in (YES, NO) else None


def among_words(prediction: str) -> str | None:
    """The one of yes and no that occurs as a word, if the other does not. Source: VLMEvalKit, YOrN_Extraction."""
    words = prediction.lower().translate(_NO_PUNCTUATION).split()
    if (YES in words) == (NO in words):
        return None
    return YES if YES in words else NO


def at_the_start(prediction: str) -> str | None:
    """yes or no alone, as one letter, or within the first four characters. Source: lmms-eval, MME."""
    text = prediction.lower().strip().replace(".", "")
    if text in (YES, NO):
        return text
    if len(text) == 1:
        return {"y": YES, "n": NO}.get(text)
    return next((word for word in (YES, NO) if word in text[:4]), None)


def yes_or_else_no(prediction: str) -> str:
    """yes wherever the word's letters occur, else no. Source: lmms-eval, HallusionBench without a judge."""
    return YES if YES in prediction.lower() else NO


def says(read: Callable[[str], str | None]) -> Rule:
    """The rule that an answer, read by one of the functions above, equals the expected one."""

    def rule(prediction: str, sample: Sample) -> float | None:
        found = read(prediction)
        return None if found is None else float(found == sample.answer.lower())

    return rule
