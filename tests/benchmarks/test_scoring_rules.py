"""Each rule for one answer, by its worked examples and its traps. None: nothing was read, which counts as wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.benchmarks.scoring import letters, yes_no
from harness.benchmarks.scoring.boxes import hits, overlap
from harness.benchmarks.scoring.documents import anls, contains_answer, edits, relaxed
from harness.benchmarks.scoring.letters import chooses
from harness.benchmarks.scoring.text import among_words_of, any_exact, same_bare
from harness.benchmarks.scoring.vqa import evalai, soft_accuracy, words
from harness.benchmarks.scoring.yes_no import says
from harness.records.records import Sample


def sample(answer: str = "B", *answers: str, choices: tuple[str, ...] = (), category: str = "") -> Sample:
    return Sample(
        "id", "cluster", category, "question", answer, ("image",), choices=choices, answers=answers or (answer,)
    )


COLOURS = ("red", "blue", "dark green", "grey")


@pytest.mark.parametrize(
    ("read", "prediction", "found"),
    [
        (yes_no.whole_word, " Yes\n", "yes"),
        (yes_no.whole_word, "yes.", None),  # POPE's trap: the period makes it wrong
        (yes_no.whole_word, "Yes, there is.", None),
        (yes_no.among_words, "Yes, there is.", "yes"),
        (yes_no.among_words, "no", "no"),
        (yes_no.among_words, "yes and no", None),
        (yes_no.among_words, "I do not know", None),  # "know" is no "no"
        (yes_no.at_the_start, "No.", "no"),
        (yes_no.at_the_start, "Y", "yes"),
        (yes_no.at_the_start, "not at all", "no"),  # "no" within the first four characters
        (yes_no.at_the_start, "There is: yes", None),
        (yes_no.at_the_start, "", None),
        (yes_no.yes_or_else_no, "eyes", "yes"),
        (yes_no.yes_or_else_no, "certainly", "no"),
    ],
)
def test_yes_and_no_are_read_as_each_tool_reads_them(read, prediction: str, found: str | None):
    assert read(prediction) == found


def test_an_unread_answer_is_neither_right_nor_guessed():
    rule = says(yes_no.among_words)
    assert [rule(words, sample("No")) for words in ("no", "yes", "maybe")] == [1.0, 0.0, None]


@pytest.mark.parametrize(
    ("read", "prediction", "found"),
    [
        (letters.vlmevalkit, "B", "B"),
        (letters.vlmevalkit, "The answer is (B).", "B"),
        (letters.vlmevalkit, "B is my choice, since nothing else is as right as it", None),  # not among the last five
        (letters.vlmevalkit, "A or B", None),
        (letters.vlmevalkit, "It is dark green", "C"),
        (letters.vlmevalkit, "red or blue", None),
        (letters.vlmevalkit, "blue".ljust(42, "."), "B"),  # twice as long as all options together
        (letters.vlmevalkit, "blue".ljust(43, "."), None),
        (letters.vlmevalkit, "Because A and B differ, the correct answer is **b**, I think it is so", "B"),
        (letters.vlmevalkit, "Z", None),
        (letters.vlmevalkit, "", None),
        (letters.letter_and_period, " B. blue", "B"),
        (letters.letter_and_period, "b", "B"),
        (letters.letter_and_period, "blue", None),
        (letters.letter_and_period, "E", None),
        (letters.first_character, "\nDogs", "D"),  # the rule's own trap: a word that begins like a letter
        (letters.first_character, "b", None),
        (letters.mmmu, "(B) or (C)", "C"),  # the last one counts
        (letters.mmmu, "(A), but B", "A"),  # brackets go before bare letters
        (letters.mmmu, "B.", "B"),
        (letters.mmmu, "dark green", None),  # too short for a text match
        (letters.mmmu, "I think that it must be dark green here", "C"),
        (letters.mmmu, "nothing of that kind is in it", None),  # MMMU would draw a letter
        (letters.mmbench, "B", "B"),
        (letters.mmbench, "(C).", "C"),
        (letters.mmbench, "Answer:B", "B"),
        (letters.mmbench, "A. red and B. blue", None),
        (letters.mmbench, "it looks grey", "D"),
        (letters.mmbench, "USA, maybe", None),  # the A of a word is no letter
        (letters.by_place, "A: red", "A"),
        (letters.by_place, "it must be C", "C"),
        (letters.by_place, "A. or rather the answer is B", "A"),  # the start goes before the phrase
        (letters.by_place, "The answer is b because of it", "B"),
        (letters.by_place, "perhaps (D) then", "D"),
        (letters.by_place, "A dog", None),
    ],
)
def test_a_letter_is_read_as_each_tool_reads_it(read, prediction: str, found: str | None):
    assert read(prediction, COLOURS) == found


@pytest.mark.parametrize(
    ("rule", "prediction", "expected", "score"),
    [
        (letters.letter_or_point, "b", sample("B", choices=COLOURS), 1.0),
        (letters.letter_or_point, "B. blue", sample("B", choices=COLOURS), 1.0),
        (letters.letter_or_point, "(B)", sample("B", choices=COLOURS), None),
        (letters.letter_or_point, "C", sample("D", choices=COLOURS[:3]), 0.0),
        (letters.crpe, "B. under it", sample("B. under"), 1.0),
        (letters.crpe, "A dog", sample("B. under"), 0.0),  # a leading capital is read as a letter
        (letters.crpe, "it is under", sample("(B) under"), 1.0),
        (letters.crpe, "it is on", sample("(B) under"), 0.0),
        (letters.crpe, "it is on", sample("B"), None),  # an empty text would be found in anything
        (same_bare, "Red!", sample("red"), 1.0),
        (same_bare, "dark red", sample("red"), 0.0),
        (any_exact, "two.", sample("2", "2", "Two"), 1.0),
        (among_words_of, "So the area is 12.", sample("12", "12"), 1.0),
        (among_words_of, "1,200", sample("1200.0", "1200.0"), 1.0),
        (among_words_of, "112", sample("12", "12"), 0.0),
        (relaxed, "14.9", sample("14.2"), 1.0),  # 4.93 % off
        (relaxed, "14.92", sample("14.2"), 0.0),  # 5.07 % off
        (relaxed, "57", sample("57%"), 0.0),
        (relaxed, "0.57", sample("57%"), 1.0),
        (relaxed, "0", sample("0"), 1.0),
        (relaxed, "0.01", sample("0"), 0.0),  # no tolerance around zero
        (relaxed, "peru ", sample("Peru"), 1.0),
        (relaxed, "Peru.", sample("Peru"), 0.0),
        (anls, "1/8/93", sample("", "1/8/93", "1/8/1993"), 1.0),
        (anls, "paul", sample("", "Paul"), 1.0),
        (anls, "pall", sample("", "Paul"), 0.75),
        (anls, "pope", sample("", "Paul"), 0.0),  # similarity 0.25 is below one half
        (anls, "", sample("", "Paul"), 0.0),
        (anls, "new   york", sample("", "New York"), 1.0),
        (contains_answer, "It says Centre\nhere", sample("", "CENTRE"), 1.0),
        (contains_answer, "ＣＥＮＴＲＥ", sample("", "centre"), 1.0),
        (contains_answer, "x^2+Y", sample("", "x ^ 2 + Y", category="HME100k"), 1.0),
        (contains_answer, "x^2+y", sample("", "x ^ 2 + Y", category="HME100k"), 0.0),
        (hits, "It is at [0.25, 0.25, 0.5, 0.5].", sample("[0.2500, 0.2500, 0.5000, 0.5000]"), 1.0),
        (hits, "[32, 24, 64, 48]", sample("[0.2500, 0.2500, 0.5000, 0.5000]"), 0.0),  # pixels
        (hits, "left", sample("[0.2500, 0.2500, 0.5000, 0.5000]"), None),
    ],
)
def test_a_rule_scores_its_worked_examples(
    rule: Callable[[str, Sample], float | None], prediction: str, expected: Sample, score: float | None
):
    assert rule(prediction, expected) == score


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Two dogs.", "2 dogs"),
        ("dont", "don't"),
        ("John's", "john 's"),
        ("1,000", "1000"),
        ("7-up", "7 up"),
        ("7- up", "7 up"),
        ("2.5", "2.5"),
        ("none", "0"),
        ("a\nb", "b"),
    ],
)
def test_evalai_normalises_like_its_own_table(text: str, normal: str):
    assert evalai(text) == normal


def test_vqav2_keeps_what_only_the_tokeniser_changes():
    assert (words("what's up?"), evalai("what's up?")) == ("what's up", "what 's up")
    assert words("1,000-up") == "1000up"  # a comma between digits joins whatever stands around a mark


def test_an_answer_counts_by_how_many_others_gave_it():
    rule = soft_accuracy(evalai)
    people = sample("2", *["two"] * 3, *["3"] * 7)
    assert rule("2", people) == pytest.approx(
        (3 * 2 / 3 + 7 * 1) / 10
    )  # those three see two others, the rest see three
    assert rule("3", people) == 1.0
    assert rule("four", people) == 0.0


def test_edit_distance_and_overlap_by_hand():
    assert (edits("kitten", "sitting"), edits("", "abc"), edits("abc", "abc")) == (3, 3, 0)
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(2 / 6)
    assert overlap((0, 0, 1, 1), (2, 2, 3, 3)) == 0.0
    assert overlap((2, 2, 0, 0), (2, 2, 0, 0)) == 0.0  # corners swapped


def test_a_choice_is_right_only_by_the_expected_letter():
    rule = chooses(letters.by_place)
    asked = sample("b", choices=COLOURS)
    assert [rule(words, asked) for words in ("B", "C", "blue")] == [1.0, 0.0, None]
