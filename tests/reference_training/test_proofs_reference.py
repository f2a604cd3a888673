"""The validity gate of the reference suite: is it the choice of tokens that decides whether a sign can be read?"""

from collections import Counter

import pytest

from harness.reference.paths import MODEL_A, SUITE
from harness.reference.suite import load_questions
from harness.reference_training.gate import scores

pytestmark = pytest.mark.proof


def test_at_a_quarter_of_the_tokens_reading_depends_on_which_are_kept():
    """Oracle - farthest-point >= 15 points, oracle - random >= 20, and what is left without the target's tokens is
    within 5 points of always giving the majority answer."""
    questions = [question for question in load_questions() if question.family == "read"]
    assert len(questions) >= 400
    found = scores(MODEL_A, SUITE, questions, seed=0)
    oracle = found["oracle", "25 %"]
    assert oracle - found["farthest", "25 %"] >= 0.15
    assert oracle - found["random", "25 %"] >= 0.20
    majority = Counter(question.answer for question in questions).most_common(1)[0][1] / len(questions)
    assert abs(found["anti-oracle", "25 %"] - majority) <= 0.05
