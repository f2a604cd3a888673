"""Intervals for accuracies, their differences and their ratios (RA).

Every statistic here is a ratio of two totals over samples. Its variance is the clusters' jackknife, its quantile
Student's t with the effective number of clusters less one. Two corrections make rare events cover (coverage by
simulation: tests/run/test_proofs_coverage.py and docs/log.md; the percentile and BCa bootstraps cover less, 75-93 %
at accuracies near 1 or few clusters):

* an accuracy gets Wilson's score interval, with the number of independent samples that its variance tells;
* a comparison of two arms counts one sample more that was won and one more that was lost, in the variance alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Labels = Sequence[str] | ArrayLike


@dataclass(frozen=True)
class Totals:
    """Sums per cluster. columns: one (clusters,) array per score array; counts: (clusters,) samples of each."""

    columns: tuple[Floats, ...]
    counts: Floats


def totals_of(clusters: Labels, *scores: ArrayLike) -> Totals:
    """Totals of each score array per cluster. Raises ValueError unless all have one length, at least 1."""
    labels, of_sample = np.unique(np.asarray(clusters), return_inverse=True)
    columns = [np.asarray(score, dtype=np.float64) for score in scores]
    if not len(of_sample) or any(column.shape != of_sample.shape for column in columns):
        lengths = [len(of_sample), *(column.shape for column in columns)]
        raise ValueError(f"expected clusters and scores of one length, at least 1; got {lengths}")
    summed = tuple(np.bincount(of_sample, weights=column, minlength=len(labels)) for column in columns)
    return Totals(summed, np.bincount(of_sample).astype(np.float64))


def jackknife_variance(top: Floats, bottom: Floats) -> float:
    """The variance of sum(top) / sum(bottom), from leaving out one cluster at a time.

    top, bottom: (clusters,), at least two. With G clusters: (G - 1)/G x sum over g of (ratio without g - ratio)^2;
    for clusters of one size the variance of their mean. Infinite when one cluster holds all of `bottom`.
    Source: Cameron and Miller 2015, A practitioner's guide to cluster-robust inference, section VI (CV3).
    """
    count, all_top, all_bottom = len(top), top.sum(), bottom.sum()
    rest = all_bottom - bottom
    if (rest == 0).any():
        return float("inf")
    without = (all_top - top) / rest
    return float((count - 1) / count * np.square(without - all_top / all_bottom).sum())


def freedom(counts: Floats) -> float:
    """Degrees of freedom: the effective number of clusters (sum)^2 / sum of squares, less one; at least 1.

    Equal to clusters - 1 when all are of one size. Source: Kish 1965; Carter, Schnepel and Steigerwald 2017.
    """
    return max(float(counts.sum() ** 2 / np.square(counts).sum()) - 1, 1.0)


LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its bounds. how: the way it was made, or why bounds or value are NaN, in words."""

    value: float
    low: float
    high: float
    clusters: int
    how: str


@dataclass(frozen=True)
class _Estimate:
    """A ratio with its variance and degrees of freedom."""

    value: float
    variance: float
    freedom: float


def accuracy_interval(scores: ArrayLike, clusters: Labels, *, level: float = LEVEL) -> Interval:
    """The mean score p, bounds within [0, 1]: Wilson's interval for n = p(1 - p) / variance independent samples.

    Bounds: (p + t^2/2n -+ t sqrt(p(1 - p)/n + t^2/4n^2)) / (1 + t^2/n), n at most the number of samples. When every
    score is 0, or every one is 1, the clusters show no spread; the bound is then the exact binomial one for that
    many clusters. Source: Wilson 1927; Korn and Graubard 1998 for the effective n.
    """
    totals = totals_of(clusters, scores)
    (score,), count = totals.columns, len(totals.counts)
    n, p = totals.counts.sum(), float(score.sum() / totals.counts.sum())
    if p in (0.0, 1.0):
        return _all_alike(p, count, level)
    if count == 1:
        return _one_cluster(p)
    variance = jackknife_variance(score, totals.counts)
    n = min(n, p * (1 - p) / variance) if variance else n
    t = _quantile(level, freedom(totals.counts))
    centre, half = p + t**2 / (2 * n), t * sqrt(p * (1 - p) / n + (t / (2 * n)) ** 2)
    low, high = ((centre + sign * half) / (1 + t**2 / n) for sign in (-1, 1))
    return Interval(p, max(low, 0.0), min(high, 1.0), count, "Wilson, clustered")


def paired_difference(scores: ArrayLike, other: ArrayLike, clusters: Labels, *, level: float = LEVEL) -> Interval:
    """Mean of scores minus mean of `other`, the same samples under two arms; negative: `scores` is worse.

    Value -+ t sqrt(jackknife variance + 2/N^2) for N samples, within [-1, 1]. Source of the two samples: Bonett and
    Price 2012, for paired proportions.
    """
    totals = totals_of(clusters, scores, other)
    score, base = totals.columns
    return _around(_compared(score - base, totals.counts, totals.counts), len(score), level, floor=-1.0, ceiling=1.0)


def ra_interval(pruned: ArrayLike, full: ArrayLike, clusters: Labels, *, level: float = LEVEL) -> Interval:
    """RA = mean pruned / mean full on the same samples, never clipped at 1. NaN when the full model got none right.

    Value -+ t sqrt(jackknife variance + 2/F^2), F = the total of the full model's scores; not below 0.
    """
    return chance_corrected_ra(pruned, full, clusters, 0.0, level=level)


def chance_corrected_ra(
    pruned: ArrayLike, full: ArrayLike, clusters: Labels, chance: ArrayLike, *, level: float = LEVEL
) -> Interval:
    """(mean pruned - chance) / (mean full - chance): 1 = as good as no pruning, 0 = as good as guessing.

    chance: the accuracy of guessing, one number or one per sample. NaN when the full model is no better than chance.
    """
    found = _ra(pruned, full, clusters, chance)
    if isinstance(found, Interval):
        return found
    floor = 0.0 if not np.any(chance) else -inf
    return _around(found, len(np.unique(np.asarray(clusters))), level, floor=floor)


def ra_macro(benchmarks: Iterable[tuple[ArrayLike, ArrayLike, Labels]], *, level: float = LEVEL) -> Interval:
    """The mean over benchmarks of each one's RA; benchmarks: (pruned, full, clusters) of each, images of their own.

    Variance: the sum of theirs over their number squared; degrees of freedom by Welch and Satterthwaite. NaN when
    one of them has no RA.
    """
    arms = list(benchmarks)
    if not arms:
        raise ValueError("expected at least one benchmark")
    found = [_ra(pruned, full, clusters, 0.0) for pruned, full, clusters in arms]
    count = sum(len(np.unique(np.asarray(clusters))) for *_, clusters in arms)
    if any(isinstance(one, Interval) for one in found):
        return Interval(nan, nan, nan, count, "undefined: the full accuracy of a benchmark is 0")
    variances = np.array([one.variance for one in found])
    of_each = np.array([one.freedom for one in found])
    total = variances.sum()
    joint = total**2 / (variances**2 / of_each).sum() if np.isfinite(total) else 1.0
    mean = _Estimate(float(np.mean([one.value for one in found])), float(total) / len(found) ** 2, float(joint))
    return _around(mean, count, level, floor=0.0)


def minimum_detectable_effect(
    scores: ArrayLike, other: ArrayLike, clusters: Labels, *, level: float = LEVEL, power: float = 0.8
) -> float:
    """The smallest true difference of means that such an experiment would find with chance `power`; NaN: cannot tell.

    (t at (1 + level)/2 + t at power) x the standard error of `paired_difference`. Source: Bloom 1995.
    """
    totals = totals_of(clusters, scores, other)
    score, base = totals.columns
    found = _compared(score - base, totals.counts, totals.counts)
    return float((_quantile(level, found.freedom) + stats.t.ppf(power, found.freedom)) * sqrt(found.variance))


def _ra(pruned: ArrayLike, full: ArrayLike, clusters: Labels, chance: ArrayLike) -> _Estimate | Interval:
    """The estimate, or an Interval that says why there is none."""
    guessed = np.broadcast_to(np.asarray(chance, dtype=np.float64), np.shape(full))
    totals = totals_of(clusters, pruned, full, guessed)
    score, base, guess = totals.columns
    if base.sum() <= guess.sum():
        words = "no better than chance" if guess.any() else "0"
        return Interval(nan, nan, nan, len(base), f"undefined: the full accuracy is {words}")
    return _compared(score - guess, base - guess, totals.counts)


def _compared(top: Floats, bottom: Floats, counts: Floats) -> _Estimate:
    """sum(top) / sum(bottom) of two arms, with the variance of two more samples that differ; NaN for one cluster."""
    total = bottom.sum()
    variance = jackknife_variance(top, bottom) + 2 / total**2 if len(top) > 1 else nan
    return _Estimate(float(top.sum() / total), float(variance), freedom(counts))


def _around(found: _Estimate, clusters: int, level: float, floor: float, ceiling: float = inf) -> Interval:
    if np.isnan(found.variance):
        return _one_cluster(found.value)
    half = _quantile(level, found.freedom) * sqrt(found.variance)
    return Interval(
        found.value, max(found.value - half, floor), min(found.value + half, ceiling), clusters, "t on clusters"
    )


def _quantile(level: float, degrees: float) -> float:
    return float(stats.t.ppf((1 + level) / 2, degrees))


def _one_cluster(value: float) -> Interval:
    return Interval(value, nan, nan, 1, "no bounds: all samples are one cluster")


def _all_alike(value: float, clusters: int, level: float) -> Interval:
    """Clopper-Pearson at the edge: with p(edge in one cluster) = bound, all clusters at it has chance (1 - level)/2."""
    bound = ((1 - level) / 2) ** (1 / clusters)
    low, high = (bound, 1.0) if value else (0.0, 1 - bound)
    return Interval(value, low, high, clusters, "exact binomial over clusters: all scores are alike")
