"""Flips, loyalty, draws, ranks, fronts and the area below them, by hand and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from harness.stats import (
    Flips,
    drawn_means,
    flips,
    front_probabilities,
    loyalty,
    on_front,
    rank_intervals,
)


def test_flips_by_hand():
    assert flips([1, 0, 0, 1, 0.5], [1, 1, 1, 0, 0.5]) == Flips(lost=2, gained=1, same=2)
    with pytest.raises(ValueError, match="one length"):
        flips([1], [1, 0])


def test_loyalty_counts_answers_not_scores():
    """Two wrong answers that differ are no agreement; case and blanks do not matter."""
    found = loyalty(["yes", " Red", "7", "blue"], ["Yes", "red", "8", "blue "], range(4))
    assert found.value == 0.75
    assert found.low < 0.75 < found.high
    with pytest.raises(ValueError, match="one length"):
        loyalty(["a"], [], [0])


def test_draws_take_whole_clusters_and_pair_the_methods():
    """Image a: both methods right twice; image b: only the second, once. Draws aa, ab, bb in shares 1/4, 1/2, 1/4."""
    found = drawn_means([[1, 1, 0], [1, 1, 1]], ["a", "a", "b"], resamples=4000)
    values, counts = np.unique(found[:, 0].round(6), return_counts=True)
    assert values.tolist() == [0, pytest.approx(2 / 3), 1]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert (found[:, 1] == 1).all()


def test_draws_spread_as_the_standard_error_says():
    random = np.random.default_rng(0)
    means = random.random(200)
    found = drawn_means([np.repeat(means, 3)], np.repeat(np.arange(200), 3))
    assert found.std() == pytest.approx(means.std() / np.sqrt(200), rel=0.03)


def test_many_clusters_are_drawn_in_parts(monkeypatch):
    monkeypatch.setattr("harness.stats.fronts._CHUNK", 50)
    assert drawn_means([np.eye(20)[0]], range(20), resamples=7).shape == (7, 1)


def test_ranks_by_hand():
    """Ten draws: the first is best in nine and second in one; the last two tie in all."""
    draws = np.array([[0.9, 0.5, 0.1, 0.1]] * 9 + [[0.4, 0.5, 0.1, 0.1]])
    assert rank_intervals(draws, level=0.95).tolist() == [[1, 2], [1, 2], [3, 4], [3, 4]]
    assert rank_intervals(draws, level=0.5).tolist() == [[1, 1], [2, 2], [3, 4], [3, 4]]


def test_the_front_by_hand():
    """Cheap and bad, dear and good; the third is dearer than the second and no better; the fourth equals the first."""
    assert on_front([0.5, 0.9, 0.9, 0.5], [10, 20, 30, 10]).tolist() == [True, True, False, True]


def test_the_front_against_a_plain_loop():
    random = np.random.default_rng(0)
    values, costs = random.integers(5, size=(50, 8)), random.integers(5, size=8)
    for row, found in zip(values, on_front(values, np.broadcast_to(costs, values.shape)), strict=True):
        points = list(zip(row, costs, strict=True))
        beaten = [any(v >= a and c <= b and (v, c) != (a, b) for v, c in points) for a, b in points]
        assert found.tolist() == [not one for one in beaten]


def test_front_probabilities_are_shares_of_draws():
    """The dear method is on the front only where it is strictly better: in three draws of four."""
    draws = [[0.5, 0.6], [0.5, 0.6], [0.5, 0.5], [0.5, 0.7]]
    assert front_probabilities(draws, [1, 2]).tolist() == [1, 0.75]
    assert front_probabilities(draws, [[1, 2], [1, 2], [2, 1], [3, 3]]).tolist() == [0.5, 1]
