"""The Pareto front of value (higher is better) against cost (lower is better), and how certain it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.stats.clusters import Floats


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


def hypervolume(values: ArrayLike, costs: ArrayLike, *, value_floor: float, cost_ceiling: float) -> float:
    """The area that the points dominate, above `value_floor` and left of `cost_ceiling` (the fixed reference point).

    In units of value x cost. Points beyond the reference add nothing. Source: Zitzler and Thiele 1998.
    """
    area, best = 0.0, value_floor
    steps = sorted(zip(np.ravel(costs), np.ravel(values), strict=True))
    for cost, value in steps:
        if value > best and cost < cost_ceiling:
            area += (value - best) * (cost_ceiling - cost)
            best = value
    return float(area)
