"""Intervals for accuracies, their differences and their ratio (RA): 95 % unless said otherwise.

Questions about one image are not independent, so images (clusters) are drawn, never questions; two arms are compared
on the same draws, sample by sample. Every statistic here is a ratio of two totals over samples, so one function serves
all: a percentile bootstrap over clusters, its tails widened as Student's t widens the normal (Hesterberg 2015,
arXiv:1411.5279, expanded percentile; plain percentiles cover about 92 % at 30 clusters), or, with fewer than 30, t on
the clusters' residuals from the ratio (for clusters of one size that is t on cluster means).

Pure functions of arrays: scores in [0, 1], clusters any labels, one entry per sample, in the same order in every
argument. Arrays of unlike length raise ValueError, and so do no samples at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FEW_CLUSTERS = 30
RESAMPLES = 10_000
SEED = 20_250_101  # any fixed number: the same scores must give the same interval
_CHUNK = 4_000_000  # drawn cluster indices held at once

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its bounds. how: the way it was made, or why bounds or value are NaN, in words."""

    value: float
    low: float
    high: float
    clusters: int
    how: str


def accuracy_interval(scores: ArrayLike, clusters: Sequence[str] | ArrayLike, *, level: float = 0.95) -> Interval:
    """The mean score, bounds within [0, 1].

    When every score is 0, or every one is 1, resampling sees no spread; the bound is then the exact binomial one for
    that many clusters.
    """
    (score,), labels, count = _per_cluster(clusters, scores)
    if score.sum() in (0.0, count.sum()):
        return _all_alike(float(score.sum() > 0), len(labels), level)
    found = _ratio_interval(score, count, level)
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def paired_difference(
    scores: ArrayLike, other: ArrayLike, clusters: Sequence[str] | ArrayLike, *, level: float = 0.95
) -> Interval:
    """Mean of scores minus mean of `other`, the same samples under two arms; negative: `scores` is worse."""
    (score, base), _, count = _per_cluster(clusters, scores, other)
    return _ratio_interval(score - base, count, level)


def ra_interval(
    pruned: ArrayLike, full: ArrayLike, clusters: Sequence[str] | ArrayLike, *, level: float = 0.95
) -> Interval:
    """RA = mean pruned / mean full on the same samples, never clipped at 1. NaN when the full model got none right."""
    (score, base), labels, _ = _per_cluster(clusters, pruned, full)
    if base.sum() == 0:
        return Interval(np.nan, np.nan, np.nan, len(labels), "undefined: the full accuracy is 0")
    return _ratio_interval(score, base, level)


def _per_cluster(clusters: Sequence[str] | ArrayLike, *scores: ArrayLike) -> tuple[list[Floats], NDArray, Floats]:
    """Totals of each score array per cluster, the cluster labels, and the samples per cluster."""
    labels, of_sample = np.unique(np.asarray(clusters), return_inverse=True)
    columns = [np.asarray(score, dtype=np.float64) for score in scores]
    if not len(of_sample) or any(column.shape != of_sample.shape for column in columns):
        lengths = [len(of_sample), *(column.shape for column in columns)]
        raise ValueError(f"expected clusters and scores of one length, at least 1; got {lengths}")
    totals = [np.bincount(of_sample, weights=column) for column in columns]
    return totals, labels, np.bincount(of_sample).astype(np.float64)


def _ratio_interval(top: Floats, bottom: Floats, level: float) -> Interval:
    """sum(top) / sum(bottom) with bounds from the spread between clusters. top, bottom: (clusters,)."""
    count = len(top)
    value = float(top.sum() / bottom.sum())
    if count == 1:
        return Interval(value, np.nan, np.nan, 1, "no bounds: all samples are one cluster")
    if count < FEW_CLUSTERS:
        residual = (top - value * bottom) / bottom.mean()  # (clusters,)
        half = float(stats.t.ppf((1 + level) / 2, count - 1) * residual.std(ddof=1) / np.sqrt(count))
        return Interval(value, value - half, value + half, count, "t on clusters")
    drawn = _drawn_ratios(top, bottom)
    tail = stats.norm.cdf(-np.sqrt(count / (count - 1)) * stats.t.ppf((1 + level) / 2, count - 1))
    low = float(np.quantile(drawn, tail, method="lower"))
    high = float(np.quantile(drawn, 1 - tail, method="higher"))
    return Interval(value, low, high, count, "cluster bootstrap")


def _drawn_ratios(top: Floats, bottom: Floats) -> Floats:
    """(RESAMPLES,) ratios of totals over clusters drawn with replacement; infinite where the bottom total is 0."""
    count = len(top)
    random = np.random.default_rng(SEED)
    ratios = []
    for start in range(0, RESAMPLES, step := max(1, _CHUNK // count)):
        drawn = random.integers(count, size=(min(step, RESAMPLES - start), count))
        tops, bottoms = top[drawn].sum(axis=1), bottom[drawn].sum(axis=1)
        ratios.append(np.divide(tops, bottoms, out=np.full_like(tops, np.inf), where=bottoms != 0))
    return np.concatenate(ratios)


def _all_alike(value: float, clusters: int, level: float) -> Interval:
    """Clopper-Pearson at the edge: with p(edge in one cluster) = bound, all clusters at it has chance (1 - level)/2."""
    bound = ((1 - level) / 2) ** (1 / clusters)
    low, high = (bound, 1.0) if value else (0.0, 1 - bound)
    return Interval(value, low, high, clusters, "exact binomial over clusters: all scores are alike")
