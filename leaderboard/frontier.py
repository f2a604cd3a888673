"""Scores over drawn sets of images, few enough draws for somebody who waits. A pure function of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.report.gather import RESAMPLES
from harness.stats import drawn_means

LARGE = 1_000_000  # resamples x clusters that are drawn while somebody waits


def resamples_for(clusters: ArrayLike) -> int:
    """As many draws as the report makes, fewer with very many clusters, at least 400: a share to 5 points."""
    return max(400, min(RESAMPLES, LARGE // len(np.unique(np.asarray(clusters)))))


def means_over_draws(scores: ArrayLike, clusters: ArrayLike) -> NDArray[np.float64]:
    """(resamples, runs) mean scores over clusters drawn with replacement.

    scores: (runs, samples) in [0, 1]; clusters: (samples,) labels.
    """
    return drawn_means(scores, clusters, resamples=resamples_for(clusters))
