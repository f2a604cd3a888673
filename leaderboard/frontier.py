"""How surely each of several runs is on the front of accuracy against a cost. Pure functions of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.stats import drawn_means, front_probabilities

RESAMPLES = 2000
LARGE = 2_000_000  # resamples x clusters that are drawn while somebody waits


def certainty(scores: ArrayLike, clusters: ArrayLike, costs: ArrayLike) -> NDArray[np.float64]:
    """(runs,) share of the draws over clusters in which a run is on the front.

    scores: (runs, samples) in [0, 1]; clusters: (samples,) labels; costs: (runs,), lower is better. With very many
    clusters fewer draws are made, at least 400: a share is then known to 5 points.
    """
    count = len(np.unique(np.asarray(clusters)))
    resamples = max(400, min(RESAMPLES, LARGE // count))
    return front_probabilities(drawn_means(scores, clusters, resamples=resamples), costs)
