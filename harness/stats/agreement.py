"""How two arms answer the same questions: what flipped, and how often they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.clusters import Labels
from harness.stats.intervals import LEVEL, Interval, accuracy_interval


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
