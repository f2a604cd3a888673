"""Totals per cluster, and how far a ratio of two totals would move had other clusters been drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
