"""Intervals hold what they promise: by hand on a few numbers, by simulation on many."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference

from harness.stats import FEW_CLUSTERS, accuracy_interval, paired_difference, ra_interval

T3 = 3.182446  # Student's t, 3 degrees of freedom, two-sided 95 %


def bounds(interval):
    return interval.low, interval.high


def draw(clusters: int, seed: int = 0, per: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Full and pruned scores (0 or 1) of `per` questions on each image, questions of an image alike.

    Expected: full 0.7, pruned 0.8 x 0.7 + 0.2 x 0.6 = 0.68.
    """
    random = np.random.default_rng(seed)
    ease = random.normal(size=(clusters, 1)) + random.normal(size=(clusters, per))
    full = ease < reference.norm.ppf(0.7) * np.sqrt(2)
    pruned = np.where(random.random((clusters, per)) < 0.2, random.random((clusters, per)) < 0.6, full)
    return full.ravel().astype(float), pruned.ravel().astype(float), np.repeat(np.arange(clusters), per)


def test_four_samples_by_hand():
    found = accuracy_interval([1, 0, 1, 1], ["a", "b", "c", "d"])
    half = T3 * 0.5 / 2  # their standard deviation is 0.5
    assert (found.value, found.clusters, found.how) == (0.75, 4, "t on clusters")
    assert bounds(found) == (pytest.approx(max(0, 0.75 - half), abs=1e-6), 1.0)


def test_a_difference_by_hand():
    found = paired_difference([1, 0, 1, 1], [1, 1, 1, 1], ["a", "b", "c", "d"])
    assert found.value == -0.25
    assert bounds(found) == pytest.approx((-0.25 - T3 / 4, -0.25 + T3 / 4), abs=1e-6)


def test_unequal_clusters_by_hand():
    """Totals 3 of 3 and 0 of 1: ratio 0.75, residuals (3 - 2.25) / 2 and (0 - 0.75) / 2, standard error 0.375."""
    found = paired_difference([1, 1, 1, 0], [0, 0, 0, 0], ["a", "a", "a", "b"])
    assert found.value == 0.75
    assert bounds(found) == pytest.approx((0.75 - 12.7062 * 0.375, 0.75 + 12.7062 * 0.375), abs=1e-4)


def test_ra_by_hand():
    """Totals 3 and 4: RA 0.75; residuals (p - 0.75 f) of 0.25, -0.75, 0.25, 0.25 have standard deviation 0.5."""
    found = ra_interval([1, 0, 1, 1], [1, 1, 1, 1], ["a", "b", "c", "d"])
    assert found.value == 0.75
    assert bounds(found) == pytest.approx((0.75 - T3 / 4, 0.75 + T3 / 4), abs=1e-6)


def test_few_equal_clusters_give_student_t_on_cluster_means():
    full, _, clusters = draw(20)
    found = accuracy_interval(full, clusters)
    expected = reference.ttest_1samp(full.reshape(20, 3).mean(axis=1), 0).confidence_interval()
    assert bounds(found) == pytest.approx((expected.low, expected.high))


def test_unequal_clusters_keep_the_accuracy_of_samples():
    assert accuracy_interval([1, 1, 1, 0], ["a", "a", "a", "b"]).value == 0.75


@pytest.mark.parametrize("clusters", [FEW_CLUSTERS - 1, FEW_CLUSTERS, 500])
def test_bounds_agree_with_the_standard_error(clusters):
    full, pruned, labels = draw(clusters, seed=2)
    found = paired_difference(pruned, full, labels)
    error = (pruned - full).reshape(clusters, 3).mean(axis=1).std(ddof=1) / np.sqrt(clusters)
    width = 2 * reference.t.ppf(0.975, clusters - 1) * error
    assert found.high - found.low == pytest.approx(width, rel=0.1)
    assert found.how == ("t on clusters" if clusters < FEW_CLUSTERS else "cluster bootstrap")


@pytest.mark.parametrize("clusters", [10, 50])
def test_asking_each_question_four_times_adds_no_certainty(clusters):
    full, _, _ = draw(clusters, per=1)
    once = accuracy_interval(full, np.arange(clusters))
    assert accuracy_interval(np.repeat(full, 4), np.repeat(np.arange(clusters), 4)) == once
    naive = accuracy_interval(np.repeat(full, 4), np.arange(4 * clusters))
    assert naive.high - naive.low < 0.7 * (once.high - once.low)


@pytest.mark.parametrize("clusters", [10, 50])
def test_pairing_is_used(clusters):
    full, pruned, labels = draw(clusters)
    paired = paired_difference(pruned, full, labels)
    alone = accuracy_interval(pruned, labels)
    assert paired.high - paired.low < alone.high - alone.low


@pytest.mark.parametrize("clusters", [10, 50])
def test_two_equal_arms_differ_by_nothing(clusters):
    full, _, labels = draw(clusters)
    assert (paired_difference(full, full, labels).value, *bounds(paired_difference(full, full, labels))) == (0, 0, 0)
    assert (ra_interval(full, full, labels).value, *bounds(ra_interval(full, full, labels))) == (1, 1, 1)


def test_ra_above_one_is_not_clipped():
    full, pruned, labels = draw(200)
    found = ra_interval(full, pruned * (np.arange(600) % 2), labels)
    assert found.value > 1.5 and found.low > 1


def test_the_same_scores_in_any_order_give_the_same_interval():
    full, pruned, labels = draw(40)
    order = np.random.default_rng(1).permutation(len(full))
    assert ra_interval(pruned[order], full[order], labels[order]) == ra_interval(pruned, full, labels)


def test_a_higher_level_is_wider():
    full, pruned, labels = draw(50)
    narrow, wide = (paired_difference(pruned, full, labels, level=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_all_right_and_all_wrong_are_not_certain():
    """0.025 ** (1 / 100) = 0.9638: with a hundred images all right, 3.6 % wrong is still credible."""
    labels = np.repeat(np.arange(100), 2)
    right, wrong = accuracy_interval(np.ones(200), labels), accuracy_interval(np.zeros(200), labels)
    assert (right.value, right.high, wrong.value, wrong.low) == (1, 1, 0, 0)
    assert right.low == pytest.approx(0.963783, abs=1e-6) == 1 - wrong.high
    assert "alike" in right.how


def test_one_cluster_gives_a_value_without_bounds():
    found = paired_difference([1, 0], [0, 0], ["a", "a"])
    assert found.value == 0.5 and np.isnan(bounds(found)).all() and "one cluster" in found.how


def test_ra_of_a_model_that_gets_nothing_right_is_undefined():
    found = ra_interval([1, 0], [0, 0], ["a", "b"])
    assert np.isnan([found.value, *bounds(found)]).all() and "full accuracy is 0" in found.how


def test_ra_with_a_nearly_hopeless_full_model_has_no_upper_bound():
    """One image right in 40: more than a third of the draws miss it."""
    full = np.eye(40)[0]
    assert ra_interval(np.ones(40), full, np.arange(40)).high == np.inf


@pytest.mark.parametrize("scores, clusters", [([], []), ([1, 0], ["a"]), ([[1, 0]], ["a", "b"])])
def test_arrays_that_do_not_match_are_refused(scores, clusters):
    with pytest.raises(ValueError, match="one length"):
        accuracy_interval(scores, clusters)


@pytest.mark.parametrize("clusters", [15, 60])
def test_coverage_of_clustered_questions(clusters, monkeypatch):
    """200 experiments with a known truth; 95 % of 200 is 190, less than 179 has a chance below 0.1 %."""
    monkeypatch.setattr("harness.stats.RESAMPLES", 1000)
    covered = naive = 0
    for seed in range(200):
        full, _, labels = draw(clusters, seed, per=6)
        found = accuracy_interval(full, labels)
        covered += found.low <= 0.7 <= found.high
        alone = accuracy_interval(full, np.arange(len(full)))
        naive += alone.low <= 0.7 <= alone.high
    assert 179 <= covered <= 199
    assert naive < 170, "the experiment is one that questions taken as independent fail"
