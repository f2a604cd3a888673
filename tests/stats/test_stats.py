"""Intervals hold what they promise: by hand on a few numbers, against plain loops, by simulation.

The full table of coverages is in test_proofs_coverage.py.
"""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
import pytest
from scipy import stats as reference

from harness.stats import (
    accuracy_interval,
    chance_corrected_ra,
    minimum_detectable_effect,
    paired_difference,
    ra_interval,
    ra_macro,
)

T3 = 3.182446  # Student's t, 3 degrees of freedom, two-sided 95 %
LABELS = ["a", "b", "c", "d"]


def bounds(interval):
    return interval.low, interval.high


def width(interval):
    return interval.high - interval.low


def draw(clusters: int, seed: int = 0, per: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Full and pruned scores (0 or 1) of `per` questions on each image, questions of an image alike.

    Expected: full 0.7, pruned 0.8 x 0.7 + 0.2 x 0.6 = 0.68.
    """
    random = np.random.default_rng(seed)
    ease = random.normal(size=(clusters, 1)) + random.normal(size=(clusters, per))
    full = ease < reference.norm.ppf(0.7) * np.sqrt(2)
    pruned = np.where(random.random((clusters, per)) < 0.2, random.random((clusters, per)) < 0.6, full)
    return full.ravel().astype(float), pruned.ravel().astype(float), np.repeat(np.arange(clusters), per)


def leave_one_out(top, bottom, clusters) -> float:
    """The jackknife's variance of sum(top) / sum(bottom), written as its definition reads."""
    names = sorted(set(clusters))
    whole = sum(top) / sum(bottom)
    squares = 0.0
    for name in names:
        rest = [i for i, label in enumerate(clusters) if label != name]
        squares += (sum(top[i] for i in rest) / sum(bottom[i] for i in rest) - whole) ** 2
    return (len(names) - 1) / len(names) * squares


def test_four_samples_by_hand():
    """p = 3/4, variance 1/16 (0.25 x 0.75 / 3), so n = 3 independent samples; then Wilson's formula with t."""
    found = accuracy_interval([1, 0, 1, 1], LABELS)
    centre, half = 0.75 + T3**2 / 6, T3 * sqrt(0.75 * 0.25 / 3 + T3**2 / 36)
    assert (found.value, found.clusters, found.how) == (0.75, 4, "Wilson, clustered")
    assert bounds(found) == pytest.approx([(centre - half) / (1 + T3**2 / 3), (centre + half) / (1 + T3**2 / 3)])


def test_wilson_on_independent_samples_is_the_textbook_one():
    """400 of 500: Wilson's 95 % interval is [0.7628, 0.8327] (z for t: 500 clusters of one sample)."""
    found = accuracy_interval([1] * 400 + [0] * 100, np.arange(500))
    theirs = reference.binomtest(400, 500).proportion_ci(method="wilson")
    assert bounds(found) == pytest.approx((theirs.low, theirs.high), abs=5e-4)


def test_unequal_images_count_for_fewer_in_an_accuracy():
    """Sizes 4, 1 and 1: 36 / 18 = 2 effective images, so one degree of freedom (t at 60 %: 1.3764), n = 6 samples."""
    found = accuracy_interval([1, 1, 1, 0, 1, 0], ["a", "a", "a", "a", "b", "c"], level=0.6)
    p, t = 4 / 6, 1.376382
    variance = leave_one_out([3, 1, 0], [4, 1, 1], "abc")
    n = min(6, p * (1 - p) / variance)
    half = t * sqrt(p * (1 - p) / n + (t / (2 * n)) ** 2)
    assert found.high == pytest.approx((p + t**2 / (2 * n) + half) / (1 + t**2 / n), abs=1e-6)


def test_a_difference_by_hand():
    """Mean -1/4, variance of the mean 1/16, and two samples more that differ: 2/16."""
    found = paired_difference([1, 0, 1, 1], [1, 1, 1, 1], LABELS, level=0.8)
    half = 1.637744 * sqrt(3 / 16)
    assert (found.value, found.how) == (-0.25, "t on clusters")
    assert bounds(found) == pytest.approx((-0.25 - half, -0.25 + half), abs=1e-6)


def test_a_difference_stays_within_one_point_of_score():
    assert bounds(paired_difference([1, 0, 1, 1], [1, 1, 1, 1], LABELS)) == (-1, 1)


def test_ra_by_hand():
    """Totals 3 and 4: RA 0.75, the same variance as the difference of which it is a shift."""
    found = ra_interval([1, 0, 1, 1], [1, 1, 1, 1], LABELS, level=0.8)
    half = 1.637744 * sqrt(3 / 16)
    assert found.value == 0.75
    assert bounds(found) == pytest.approx((max(0.75 - half, 0), 0.75 + half), abs=1e-6)
    assert ra_interval([1, 0, 1, 1], [1, 1, 1, 1], LABELS).low == 0


def test_unequal_clusters_by_hand():
    """Sizes 3 and 1, effective number (4 x 4) / (9 + 1) = 1.6, so one degree of freedom: t at 60 % is 1.3764.

    Without the one cluster the mean is 0, without the other 1: variance (0.75^2 + 0.25^2) / 2, plus 2/16.
    """
    found = paired_difference([1, 1, 1, 0], [0, 0, 0, 0], ["a", "a", "a", "b"], level=0.6)
    half = 1.376382 * sqrt(0.3125 + 0.125)
    assert found.value == 0.75
    assert found.low == pytest.approx(0.75 - half, abs=1e-6) and found.high == 1


def test_the_variance_is_that_of_leaving_clusters_out():
    random = np.random.default_rng(3)
    labels = random.integers(12, size=60)
    full, pruned = random.random(60), random.random(60)
    for found, top, bottom in (
        (paired_difference(pruned, full, labels), pruned - full, np.ones(60)),
        (ra_interval(pruned, full, labels), pruned, full),
    ):
        sizes = np.bincount(labels)
        t = reference.t.ppf(0.975, sizes.sum() ** 2 / (sizes**2).sum() - 1)
        half = t * sqrt(leave_one_out(top, bottom, list(labels)) + 2 / sum(bottom) ** 2)
        assert bounds(found) == pytest.approx((found.value - half, found.value + half))


def test_unequal_clusters_keep_the_accuracy_of_samples():
    assert accuracy_interval([1, 1, 1, 0], ["a", "a", "a", "b"]).value == 0.75


@pytest.mark.parametrize("clusters", [10, 50])
def test_asking_each_question_four_times_adds_no_certainty(clusters):
    full, _, _ = draw(clusters, per=1)
    once = accuracy_interval(full, np.arange(clusters))
    again = accuracy_interval(np.repeat(full, 4), np.repeat(np.arange(clusters), 4))
    assert width(again) == pytest.approx(width(once), rel=0.06)  # n is capped at the samples in the first
    assert width(accuracy_interval(np.repeat(full, 4), np.arange(4 * clusters))) < 0.7 * width(once)


@pytest.mark.parametrize("clusters", [20, 50])
def test_pairing_is_used(clusters):
    full, pruned, labels = draw(clusters)
    assert width(paired_difference(pruned, full, labels)) < width(accuracy_interval(pruned, labels))


@pytest.mark.parametrize("clusters", [10, 50])
def test_two_equal_arms_differ_by_nothing_within_what_so_few_samples_can_tell(clusters):
    full, _, labels = draw(clusters)
    difference, ra = paired_difference(full, full, labels), ra_interval(full, full, labels)
    t = reference.t.ppf(0.975, clusters - 1)
    assert difference.value == 0 and ra.value == 1
    assert difference.high == pytest.approx(t * sqrt(2) / (3 * clusters)) == -difference.low
    assert ra.high - 1 == pytest.approx(t * sqrt(2) / full.sum()) == pytest.approx(1 - ra.low)


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
    for found in (paired_difference([1, 0], [0, 0], ["a", "a"]), accuracy_interval([1, 0], ["a", "a"])):
        assert found.value == 0.5 and np.isnan(bounds(found)).all() and "one cluster" in found.how


def test_ra_of_a_model_that_gets_nothing_right_is_undefined():
    found = ra_interval([1, 0], [0, 0], ["a", "b"])
    assert np.isnan([found.value, *bounds(found)]).all() and "full accuracy is 0" in found.how


def test_ra_with_a_nearly_hopeless_full_model_has_no_upper_bound():
    """One image right in 40: without it there is no RA."""
    found = ra_interval(np.ones(40), np.eye(40)[0], np.arange(40))
    assert bounds(found) == (0, inf)


def test_chance_corrected_ra_by_hand():
    """Four yes/no questions, chance 1/2: (3/4 - 1/2) / (4/4 - 1/2) = 1/2, and below chance it is negative."""
    assert chance_corrected_ra([1, 0, 1, 1], [1] * 4, LABELS, 0.5).value == 0.5
    assert chance_corrected_ra([1, 0, 0, 0], [1] * 4, LABELS, 0.5).value == -0.5
    assert chance_corrected_ra([1, 0, 0, 0], [1] * 4, LABELS, 0.5).low < -0.5


def test_chance_may_differ_by_sample():
    """Two yes/no questions (1/2) and two of four choices (1/4): (3 - 1.5) / (4 - 1.5) = 0.6."""
    assert chance_corrected_ra([1, 0, 1, 1], [1] * 4, LABELS, [0.5, 0.5, 0.25, 0.25]).value == pytest.approx(0.6)


def test_chance_corrected_ra_of_a_guessing_model_is_undefined():
    found = chance_corrected_ra([1, 0], [1, 0], ["a", "b"], 0.5)
    assert np.isnan(found.value) and "no better than chance" in found.how


def test_ra_macro_by_hand():
    """RA 0.75 and 1 on two benchmarks of four samples: mean 0.875; variances 3/16 and 2/16, a quarter of their sum;
    degrees of freedom (3 + 2)^2 / (9/3 + 4/3) = 75/13."""
    full = [1, 1, 1, 1]
    found = ra_macro([([1, 0, 1, 1], full, LABELS), (full, full, LABELS)], level=0.8)
    half = reference.t.ppf(0.9, 75 / 13) * sqrt(5 / 16) / 2
    assert found.value == 0.875 and found.clusters == 8
    assert bounds(found) == pytest.approx((0.875 - half, 0.875 + half))


def test_ra_macro_weighs_benchmarks_not_samples():
    many, few = ([1] * 100, [1] * 100, range(100)), ([0, 1], [1, 1], range(2))
    assert ra_macro([many, few]).value == 0.75
    assert np.isnan(ra_macro([many, ([0, 1], [0, 0], range(2))]).value)
    with pytest.raises(ValueError, match="one benchmark"):
        ra_macro([])


def test_the_minimum_detectable_effect_by_hand():
    """Standard error sqrt(3/16); t of 3 degrees of freedom at 97.5 % and at 80 %: 3.1824 + 0.9785."""
    found = minimum_detectable_effect([1, 0, 1, 1], [1, 1, 1, 1], LABELS)
    assert found == pytest.approx((T3 + 0.978472) * sqrt(3 / 16), abs=1e-5)


def test_an_effect_of_the_detectable_size_is_found_four_times_in_five():
    """1,000 questions, 100 lost and 100 gained; then as many flips, but lost more often than gained by the effect."""
    clusters = np.arange(1000)
    effect = minimum_detectable_effect(clusters < 100, (clusters >= 100) & (clusters < 200), clusters)
    assert effect == pytest.approx(0.040, abs=0.001)
    drawn = np.random.default_rng(0).random((300, 1000))
    lost, gained = drawn < 0.1 + effect / 2, drawn > 0.9 + effect / 2
    found = np.mean([paired_difference(up, down, clusters).high < 0 for up, down in zip(gained, lost, strict=True)])
    assert found == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("scores, clusters", [([], []), ([1, 0], ["a"]), ([[1, 0]], ["a", "b"])])
def test_arrays_that_do_not_match_are_refused(scores, clusters):
    with pytest.raises(ValueError, match="one length"):
        accuracy_interval(scores, clusters)


@pytest.mark.parametrize("clusters", [15, 60])
def test_coverage_of_clustered_questions(clusters):
    """200 experiments with a known truth; 95 % of 200 is 190, less than 179 has a chance below 0.1 %."""
    covered = naive = 0
    for seed in range(200):
        full, _, labels = draw(clusters, seed, per=6)
        found = accuracy_interval(full, labels)
        covered += found.low <= 0.7 <= found.high
        alone = accuracy_interval(full, np.arange(len(full)))
        naive += alone.low <= 0.7 <= alone.high
    assert 179 <= covered <= 199
    assert naive < 170, "the experiment is one that questions taken as independent fail"
