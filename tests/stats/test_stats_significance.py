"""Tests of whether two arms differ, against exact counts and plain loops."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from harness.stats import holm, mcnemar


def test_mcnemar_by_hand():
    """Three lost, none gained: both tails of three coins, 2/8."""
    assert mcnemar([0, 0, 0, 1, 1], [1, 1, 1, 1, 1], range(5)) == 0.25


@pytest.mark.parametrize("lost, gained", [(1, 0), (7, 2), (12, 12), (40, 15), (3, 600)])
def test_one_question_a_cluster_is_the_exact_binomial_test(lost, gained):
    scores, other = [0] * lost + [1] * gained + [1] * 9, [1] * lost + [0] * gained + [1] * 9
    expected = binomtest(min(lost, gained), lost + gained).pvalue
    assert mcnemar(scores, other, range(len(scores))) == pytest.approx(expected, rel=1e-9)


def test_clusters_are_swapped_whole():
    """Every swap of four images counted one by one; their differences are 3, 1, -2 and 0."""
    labels = [0, 0, 0, 1, 2, 2, 3, 3]
    first, second = np.array([1, 1, 1, 1, 0, 0, 1, 0]), np.array([0, 0, 0, 0, 1, 1, 0, 1])
    sums = [abs(np.dot(signs, [3, 1, -2, 0])) for signs in product((-1, 1), repeat=4)]
    assert mcnemar(first, second, labels) == np.mean([total >= 2 for total in sums])


def test_four_questions_that_fall_together_are_one_piece_of_evidence():
    scores, other = np.zeros(20), np.ones(20)
    assert mcnemar(scores, other, np.arange(20)) < 1e-5
    assert mcnemar(scores, other, np.arange(20) // 4) == 2 / 2**5


def test_nothing_that_differs_is_no_evidence():
    assert mcnemar([1, 0, 1], [1, 0, 1], range(3)) == 1.0
    assert mcnemar([1, 0], [0, 1], [0, 0]) == 1.0, "within one image they cancel"


def test_scores_between_nought_and_one_are_swapped_at_random():
    """Half points give what whole points give, within the error of 20,000 swaps."""
    random = np.random.default_rng(0)
    first, second = (random.random((2, 30)) < [[0.4], [0.6]]).astype(float)
    exact = mcnemar(first, second, range(30))
    assert 0.01 < exact < 0.5
    assert mcnemar(first / 3, second / 3, range(30)) == pytest.approx(exact, abs=0.01)


def test_false_alarms_are_rare_where_there_is_no_difference():
    alarms = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        ease = random.random((40, 1)) < 0.5
        first, second = ((random.random((40, 4)) < 0.3 + 0.5 * ease).ravel() for _ in range(2))
        alarms += mcnemar(first, second, np.repeat(np.arange(40), 4)) < 0.05
    assert alarms <= 24  # 15 expected


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.03 of four tests: x4, x3, x2; the last, 0.9, stays; names keep their order."""
    found = holm({"b": 0.02, "d": 0.9, "a": 0.01, "c": 0.03})
    assert found == pytest.approx({"b": 0.06, "d": 0.9, "a": 0.04, "c": 0.06})
    assert list(found) == ["b", "d", "a", "c"]


def test_holm_never_exceeds_one_and_takes_nothing():
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
