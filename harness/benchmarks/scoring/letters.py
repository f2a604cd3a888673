"""Which option did the model choose? One reader per public tool, each from words and options to a letter or None.

The options of a sample are lettered A, B, C ... in order; the expected answer is a letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from string import ascii_uppercase

from harness.benchmarks.scoring.rule import Rule
from harness.benchmarks.scoring.text import bare
from harness.records.records import Sample

Reader = Callable[[str, Sequence[str]], str | None]


def chooses(read: Reader) -> Rule:
    """The rule that the letter found by a reader is the expected one."""

    def rule(prediction: str, sample: Sample) -> float | None:
        found = read(prediction, sample.choices)
        return None if found is None else float(found == sample.answer.upper())

    return rule


def lettered(choices: Sequence[str]) -> dict[str, str]:
    """Letter -> option, A to D where a benchmark hides its options in the question."""
    return dict(zip(ascii_uppercase, choices, strict=False)) if choices else dict.fromkeys("ABCD", "")


def vlmevalkit(prediction: str, choices: Sequence[str]) -> str | None:
    """A lone letter near the end, "answer is **X**", or the text of exactly one option.

    Source: VLMEvalKit, `can_infer`, without a judge: what it would hand to GPT is unread here.
    """
    options = lettered(choices)
    words = re.sub(r"[.()\[\],:;!*#{}]", " ", prediction).split()
    found = [letter for letter in options if letter in words]
    if len(found) == 1 and found[0] in words[-5:]:
        return found[0]
    if words == ["Z"]:
        return None
    stated = re.search(r"(?:correct )?answer is \*\*([A-Z])\*\*", prediction, re.IGNORECASE)
    if stated and stated[1].upper() in options:
        return stated[1].upper()
    if len(prediction) > 2 * sum(map(len, options.values())):
        return None
    return only_text(prediction, options)


def only_text(prediction: str, options: dict[str, str]) -> str | None:
    """The letter of the one option whose text occurs in the answer, case ignored; None for none or several."""
    found = [letter for letter, text in options.items() if text and text.lower() in prediction.lower()]
    return found[0] if len(found) == 1 else None


def letter_and_period(prediction: str, choices: Sequence[str]) -> str | None:
    """The letter before a leading period ("B. a cat"), else the whole answer if it is a letter. Source: AI2D."""
    leading = re.match(r"\s*([A-Z])\.", prediction)
    text = leading[1] if leading else bare(prediction).upper()
    return text if text in lettered(choices) else None


def first_character(prediction: str, choices: Sequence[str]) -> str | None:
    """The first character if it is an option's letter: "Dogs" is read as D. Source: lmms-eval, SEED-Bench."""
    first = prediction.strip()[:1]
    return first if first in lettered(choices) else None


def mmmu(prediction: str, choices: Sequence[str]) -> str | None:
    """ "(A)", else "A ", else "A.", else an option's text in an answer of more than five words; the last one counts.

    Source: MMMU's own parser as in lmms-eval, without its random choice.
    """
    options = lettered(choices)
    text = " " + prediction.strip(" ,.!?;:'") + " "
    for pattern in ("({})", "{} ", "{}."):
        found = [(text.rfind(pattern.format(letter)), letter) for letter in options if pattern.format(letter) in text]
        if found:
            return max(found)[1]
    if len(text.split()) <= 5:
        return None
    found = [(text.lower().rfind(option.lower()), letter) for letter, option in options.items() if option]
    return max((one for one in found if one[0] >= 0), default=(0, None))[1]


def mmbench(prediction: str, choices: Sequence[str]) -> str | None:
    """A letter as the only word, a letter beside . , : ) or in brackets, else the text of exactly one option.

    Source: lmms-eval, mmbench_en_dev_static.
    """
    options = lettered(choices)
    if prediction.strip() in options:
        return prediction.strip()
    for pattern in (r"\({}\)\.?", r"(?<![A-Za-z]){}\)\.?", r"(?<![A-Za-z]){}[.,:]", r":\s?{}(?![A-Za-z])"):
        found = [letter for letter in options if re.search(pattern.format(letter), prediction)]
        if len(found) == 1:
            return found[0]
    return only_text(prediction, options)


def by_place(prediction: str, choices: Sequence[str]) -> str | None:
    """A letter at the start, at the end, after "answer is", in brackets: the first place that has one.

    Source: the order of the rule extractor that lmms-eval uses for MMStar.
    """
    letters = "".join(lettered(choices))
    for pattern in (
        rf"^\s*\(?([{letters}])(?:[.:,)]|\s*$)",
        rf"(?:^|[\s(])([{letters}])[.)]*\s*$",
        rf"answer(?: is)?:?\s*\(?([{letters}])(?![A-Za-z])",
        rf"\(([{letters}])\)",
    ):
        found = re.search(pattern, prediction, re.IGNORECASE if "answer" in pattern else 0)
        if found:
            return found[1].upper()
    return None


def letter_or_point(prediction: str, sample: Sample) -> float | None:
    """The answer is the letter, or begins with it and a period; anything else is unread. Source: ScienceQA."""
    text = prediction.strip()
    leading = re.match(r"([A-Z])\.", text)
    found = leading[1] if leading else text.upper()
    return float(found == sample.answer) if found in lettered(sample.choices) else None


def crpe(prediction: str, sample: Sample) -> float | None:
    """A leading letter A to D against the answer's; else the answer's text ("B. of it" from its fifth character) in it.

    Source: VLMEvalKit, CRPE's `is_correct`. An answer that is a letter alone has no text, which would be found in
    anything: then nothing was read.
    """
    text = prediction.strip()
    if text[:1] in tuple("ABCD"):
        return float(text[0] == sample.answer[:1])
    expected = sample.answer[4:].lower()
    return float(expected in text.lower()) if expected and text else None
