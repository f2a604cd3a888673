"""VQA soft accuracy: how many of ten people gave this answer. Source: EvalAI's evaluation, as in lmms-eval."""

from __future__ import annotations

import re
from collections.abc import Callable
from statistics import fmean

from harness.benchmarks.scoring.rule import Rule
from harness.records.records import Sample

_PUNCTUATION = tuple(';/[]"{}()=+\\_-><@`,?!')
_PERIOD = re.compile(
    r"(?!<=\d)(\.)(?!\d)"
)  # as published; its first half looks ahead, so "2.5" stays and "2." does not
_COMMA = re.compile(r"\d,\d")
_ARTICLES = frozenset(("a", "an", "the"))
_DIGITS = {"none": "0"} | {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
_WHOLE = (
    "ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's "
    "isn't it'd it'll let's ma'am might've mightn't must've mustn't needn't not've o'clock oughtn't shan't she'd've "
    "should've shouldn't somebody'd somebody'll somebody's someone'd someone'll someone's something'd something'll "
    "that'd that's there'd there're there's they'd they'll they're they've 'twas wasn't we'd've we've weren't what'll "
    "what're what's what've when's where'd where's where've who'd who'll who's who've why'll why're why's won't "
    "would've wouldn't y'all you'd you'll you're you've"
)
_CONTRACTIONS = {word.replace("'", ""): word for word in _WHOLE.split(" ")}


def soft_accuracy(normalise: Callable[[str], str]) -> Rule:
    """For each annotator, min(1, how many of the others gave this answer / 3); the mean over all of them."""

    def rule(prediction: str, sample: Sample) -> float:
        found = normalise(prediction)
        same = [normalise(answer) == found for answer in sample.answers]
        return fmean(min(1.0, (sum(same) - own) / 3) for own in same)

    return rule


def evalai(text: str) -> str:
    """Text as EvalAI compares it: "The two dogs." -> "2 dogs"."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return words(text)


def words(text: str) -> str:
    """The second half of `evalai`, which VQAv2 uses alone: punctuation, number words, articles, contractions."""
    text = _without_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    kept = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in kept if word not in _ARTICLES)


def _without_punctuation(text: str) -> str:
    found = text
    for mark in _PUNCTUATION:
        beside_blank = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if beside_blank or _COMMA.search(text) else " ")
    return _PERIOD.sub("", found)
