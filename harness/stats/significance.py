"""Tests: whether two arms differ, and what many tests at once may claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.intervals import LEVEL, Floats, Interval, Labels, accuracy_interval, totals_of

FLIPS = 20_000  # random sign flips, where the exact count is out of reach
SEED = 20_250_101  # any fixed number: the same scores must give the same p
_EXACT_STEPS = 50_000_000  # clusters x reachable sums that are counted one by one


def mcnemar(scores: ArrayLike, other: ArrayLike, clusters: Labels) -> float:
    """Two-sided p that the arms are alike: the chance that clusters with their arms swapped at random differ as much.

    p = P(|sum of +-d_g| >= |sum of d_g|), d_g the difference of a cluster's totals. Exact for whole totals; else
    from 20,000 random swaps, (hits + 1) / (swaps + 1). With one question a cluster and scores of 0 and 1 this is
    McNemar's exact test, binomial(b + c, 1/2). 1.0 when nothing differs.
    Source: McNemar 1947; Fisher's randomisation of pairs, by cluster.
    """
    (score, base) = totals_of(clusters, scores, other).columns
    difference = score - base
    difference = difference[difference != 0]
    whole = np.rint(difference)
    if np.allclose(difference, whole, atol=1e-9):
        sizes = np.abs(whole).astype(np.int64)
        if len(sizes) * sizes.sum() <= _EXACT_STEPS:
            return _exact(sizes, int(abs(whole.sum())))
    return _drawn(difference)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p values adjusted so that the chance of any wrong claim "adjusted p < level" is below that level.

    Sorted ascending, p_i x (m - i), i from 0, never falling, at most 1. Source: Holm 1979.
    """
    adjusted, highest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = min(max(highest, p_values[name] * (len(p_values) - rank)), 1.0)
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def _exact(sizes: np.ndarray, observed: int) -> float:
    """P(|S| >= observed), S the sum of the sizes with random signs. S = 2 x (sum of a random subset) - total."""
    total = int(sizes.sum())
    chance = np.ones(1)  # of each sum of a subset
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        of_size = np.zeros(size * count + 1)
        of_size[::size] = _heads(int(count))
        chance = np.convolve(chance, of_size)
    sums = np.abs(2 * np.arange(total + 1) - total)
    return float(min(chance[sums >= observed].sum(), 1.0))


def _heads(count: int) -> Floats:
    """The chance of 0..count heads in that many throws; by squaring, so that halves stay exact."""
    chance, square = np.ones(1), np.array([0.5, 0.5])
    while count:
        if count & 1:
            chance = np.convolve(chance, square)
        count >>= 1
        square = np.convolve(square, square) if count else square
    return chance


def _drawn(difference: Floats) -> float:
    random = np.random.default_rng(SEED)
    observed = abs(difference.sum()) - 1e-9
    hits = 0
    for start in range(0, FLIPS, 1000):
        signs = random.integers(0, 2, size=(min(1000, FLIPS - start), len(difference))) * 2 - 1
        hits += int((np.abs(signs @ difference) >= observed).sum())
    return (hits + 1) / (FLIPS + 1)


@dataclass(frozen=True)
class Flips:
    """Counts of samples. lost: scored less than under the other arm; gained: more; same: neither."""

    lost: int
    gained: int
    same: int


def flips(scores: ArrayLike, other: ArrayLike) -> Flips:
    """How many samples `scores` lost and gained against `other`. Their sum is the flip rate's numerator (higher than
    the net loss where a method trades right answers for other right answers)."""
    first, second = np.asarray(scores, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"expected scores of one length; got {first.shape} and {second.shape}")
    lost, gained = int((first < second).sum()), int((first > second).sum())
    return Flips(lost, gained, len(first) - lost - gained)


def loyalty(answers: Sequence[str], full: Sequence[str], clusters: Labels, *, level: float = LEVEL) -> Interval:
    """The share of samples whose answer is the full model's, right or wrong; 1 = pruning changed no answer.

    Compared without case and outer blanks. Source: label loyalty, arXiv:2109.03228.
    """
    if len(answers) != len(full):
        raise ValueError(f"expected answers of one length; got {len(answers)} and {len(full)}")
    same = [float(a.strip().casefold() == b.strip().casefold()) for a, b in zip(answers, full, strict=True)]
    return accuracy_interval(same, clusters, level=level)
