"""The Pareto front of value (higher is better) against cost (lower is better), and how certain it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from harness.stats.intervals import Floats, Labels, totals_of


def on_front(values: ArrayLike, costs: ArrayLike) -> NDArray[np.bool_]:
    """(..., points) whether no other point is at least as good in both and better in one; equal points share it.

    values, costs: (..., points), e.g. accuracy and tokens.
    """
    value, cost = np.broadcast_arrays(np.asarray(values, dtype=np.float64), np.asarray(costs, dtype=np.float64))
    here, there = (value[..., :, None], cost[..., :, None]), (value[..., None, :], cost[..., None, :])
    no_worse = (there[0] >= here[0]) & (there[1] <= here[1])
    better = (there[0] > here[0]) | (there[1] < here[1])
    return ~(no_worse & better).any(axis=-1)


def front_probabilities(draws: ArrayLike, costs: ArrayLike) -> Floats:
    """(points,) the share of draws in which each point is on the front.

    draws: (resamples, points) values, as `drawn_means` gives them; costs: (points,), or drawn likewise.
    """
    drawn = np.asarray(draws, dtype=np.float64)
    cost = np.broadcast_to(np.asarray(costs, dtype=np.float64), drawn.shape)
    parts = [on_front(drawn[at : at + 1000], cost[at : at + 1000]) for at in range(0, len(drawn), 1000)]
    return np.concatenate(parts).mean(axis=0)


RESAMPLES = 10_000
SEED = 20_250_101  # any fixed number: the same scores must give the same draws
_CHUNK = 4_000_000  # weights held at once


def drawn_means(scores: ArrayLike, clusters: Labels, *, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """(resamples, methods) mean scores, over clusters drawn with replacement, the same draw for every method.

    scores: (methods, samples). With several benchmarks: divide each one's draws by the full model's mean score, then
    average the arrays, each with a seed of its own.
    """
    totals = totals_of(clusters, *np.asarray(scores, dtype=np.float64))
    count = len(totals.counts)
    random = np.random.default_rng(seed)
    columns = np.stack(totals.columns, axis=1)  # (clusters, methods)
    drawn = []
    for start in range(0, resamples, step := max(1, _CHUNK // count)):
        weights = random.multinomial(count, np.full(count, 1 / count), size=min(step, resamples - start))
        drawn.append(weights @ columns / (weights @ totals.counts)[:, None])
    return np.concatenate(drawn)


def rank_intervals(draws: ArrayLike, *, level: float = 0.95) -> NDArray[np.int64]:
    """(methods, 2) lowest and highest rank that a method takes in `level` of the draws; 1 = the highest value.

    draws: (resamples, methods). Of tied methods each has the best rank at its low end and the worst at its high end.
    """
    drawn = np.asarray(draws, dtype=np.float64)
    best, worst = rankdata(-drawn, method="min", axis=1), rankdata(-drawn, method="max", axis=1)
    tail = (1 - level) / 2
    low = np.quantile(best, tail, axis=0, method="lower")
    high = np.quantile(worst, 1 - tail, axis=0, method="higher")
    return np.stack([low, high], axis=1).astype(np.int64)
