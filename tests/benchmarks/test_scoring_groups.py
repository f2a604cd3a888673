"""Metrics over rows, by numbers one can check by hand."""

from __future__ import annotations

import math

import pytest

from harness.benchmarks.papers.mme import COGNITION, PERCEPTION
from harness.benchmarks.papers.pope import in_each_category
from harness.benchmarks.scoring.groups import (
    all_right,
    answers_with,
    f1,
    mean,
    mean_of,
    mean_of_categories,
    mme_points,
    precision,
    recall,
    unparsed,
    where,
)
from harness.benchmarks.scoring.rule import Scored
from harness.records.records import Sample


def row(score: float | None, answer: str = "yes", category: str = "", prediction: str = "", **groups: str) -> Scored:
    return Scored(Sample("id", "cluster", category, "question", answer, ("image",), groups=groups), prediction, score)


def test_an_unread_answer_lowers_the_mean_and_has_a_rate():
    rows = [row(1.0), row(None), row(0.0), row(0.5)]
    assert (mean(rows), unparsed(rows)) == (0.375, 0.25)
    assert math.isnan(mean([])) and math.isnan(unparsed([]))


def test_f1_counts_an_unread_answer_as_a_miss_and_never_as_a_yes():
    rows = [row(1.0), row(1.0), row(None), row(0.0, "no"), row(1.0, "no"), row(None, "no")]
    assert precision(rows) == pytest.approx(2 / 3)  # three said yes: two rightly, one where no was right
    assert recall(rows) == pytest.approx(2 / 3)  # of three, one went unread
    assert f1(rows) == pytest.approx(2 / 3)
    assert f1([row(1.0, "no")]) == 0.0


def test_a_circular_question_counts_only_if_every_copy_is_right():
    rows = [row(1.0, circular="1")] * 3 + [row(0.0, circular="1")] + [row(1.0, circular="2")] * 4
    assert all_right("circular")(rows) == 0.5
    assert mean(rows) == 7 / 8  # the row rule is another number, and has another name
    assert all_right("circular")([row(None, circular="1"), row(1.0, circular="1")]) == 0.0


def test_categories_weigh_the_same_whatever_their_size():
    rows = [row(1.0, category="a")] * 3 + [row(0.0, category="b")]
    assert (mean_of_categories(rows), mean(rows)) == (0.5, 0.75)
    assert where(lambda sample: sample.category == "a")(rows) == 1.0
    assert math.isnan(where(lambda sample: sample.category == "c")(rows))
    assert mean_of(mean, mean_of_categories)(rows) == 0.625


def test_mme_adds_accuracy_and_both_right_over_its_categories():
    rows = [
        row(1.0, category="existence", pair="a"),
        row(1.0, "no", category="existence", pair="a"),
        row(1.0, category="existence", pair="b"),
        row(0.0, "no", category="existence", pair="b"),
        row(1.0, category="OCR", pair="c"),
        row(1.0, "no", category="OCR", pair="c"),
        row(None, category="code_reasoning", pair="d"),
        row(1.0, "no", category="code_reasoning", pair="d"),
    ]
    assert mme_points(PERCEPTION)(rows) == 75 + 50 + 100 + 100
    assert mme_points(COGNITION)(rows) == 50 + 0
    assert mme_points(PERCEPTION | COGNITION)(rows) == 375
    assert (len(PERCEPTION), len(COGNITION)) == (10, 4)


def test_popes_table_counts_a_row_once_in_each_of_its_categories():
    rows = [row(1.0, category="popular,random"), row(0.0, category="adversarial")]
    assert in_each_category(mean)(rows) == pytest.approx(2 / 3)


def test_the_rate_of_one_word_ignores_case_and_a_final_period():
    rows = [row(1.0, prediction="Unanswerable."), row(0.0, prediction="a dog")]
    assert answers_with("unanswerable")(rows) == 0.5
