"""Intervals hold the truth as often as they say: 1,000 experiments with a known truth, fixed seeds.

Full and pruned scores are 0 or 1. What an image makes hard it makes hard for all its questions (a normal threshold
model with correlation `within`), and so it is with the damage that pruning does: each question is damaged with chance
`loss`, and a damaged one is a coin flip. So the accuracies are p and (1 - loss) p + loss / 2.

A binomial of 1,000 at 95 % has a standard error of 0.7 points; 93 to 97 % is nearly three of them on either side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import norm

from harness.latency.statistics import summarise
from harness.records.records import LatencyRow
from harness.stats import Interval, accuracy_interval, mcnemar, paired_difference, ra_interval, ra_macro

pytestmark = pytest.mark.proof

EXPERIMENTS = 1000


@dataclass(frozen=True)
class Regime:
    """A kind of experiment. sizes: questions an image."""

    images: int
    sizes: str
    accuracy: float
    within: float
    loss: float

    @property
    def pruned(self) -> float:
        return (1 - self.loss) * self.accuracy + self.loss / 2

    def draw(self, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Full scores, pruned scores and the image of each question."""
        random = np.random.default_rng(seed)
        sizes = {
            "one": np.ones(self.images, dtype=int),
            "forty": np.full(self.images, 40),
            "1-11": (1 + random.geometric(0.4, self.images)).clip(max=11),
            "1-8": random.integers(1, 9, self.images),
        }[self.sizes]
        image = np.repeat(np.arange(self.images), sizes)
        full = self._hard(random, image) < norm.ppf(self.accuracy)
        damaged = self._hard(random, image) < norm.ppf(self.loss)
        pruned = np.where(damaged, random.random(len(image)) < 0.5, full)
        return full.astype(float), pruned.astype(float), image

    def _hard(self, random: np.random.Generator, image: np.ndarray) -> np.ndarray:
        shared, own = random.normal(size=self.images)[image], random.normal(size=len(image))
        return np.sqrt(self.within) * shared + np.sqrt(1 - self.within) * own


ENOUGH = [  # at least about ten questions differ between the arms
    Regime(5, "forty", 0.7, 0.1, 0.3),
    Regime(5, "forty", 0.95, 0.3, 0.3),
    Regime(10, "1-8", 0.95, 0.5, 0.4),
    Regime(30, "1-11", 0.7, 0.5, 0.3),
    Regime(30, "1-11", 0.97, 0.3, 0.2),
    Regime(50, "1-8", 0.7, 0.5, 0.3),
    Regime(50, "1-8", 0.97, 0.3, 0.1),
    Regime(50, "one", 0.9, 0.0, 0.4),
    Regime(320, "1-8", 0.7, 0.5, 0.3),
    Regime(320, "1-8", 0.97, 0.3, 0.1),
    Regime(320, "1-8", 0.99, 0.3, 0.02),
]
SPARSE = [  # fewer differ: the truth must still be inside, the interval may be wider than it needs to be
    Regime(5, "1-11", 0.9, 0.3, 0.2),
    Regime(10, "one", 0.8, 0.0, 0.3),
    Regime(10, "1-11", 0.95, 0.3, 0.2),
    Regime(30, "1-8", 0.9, 0.3, 0.05),
    Regime(50, "one", 0.9, 0.0, 0.05),
    Regime(320, "one", 0.99, 0.0, 0.005),
]


def coverage(regime: Regime, truth: float, interval: Callable[..., Interval]) -> float:
    """The share of experiments whose interval holds the truth. interval: of (full, pruned, image)."""
    found = [interval(*regime.draw(seed)) for seed in range(EXPERIMENTS)]
    return sum(one.low <= truth <= one.high for one in found) / EXPERIMENTS


def difference(full: np.ndarray, pruned: np.ndarray, image: np.ndarray) -> Interval:
    return paired_difference(pruned, full, image)


def ra(full: np.ndarray, pruned: np.ndarray, image: np.ndarray) -> Interval:
    return ra_interval(pruned, full, image)


def accuracy(full: np.ndarray, pruned: np.ndarray, image: np.ndarray) -> Interval:
    return accuracy_interval(full, image)


@pytest.mark.parametrize("regime", ENOUGH, ids=str)
def test_differences_of_accuracies(regime: Regime):
    assert 0.93 <= coverage(regime, regime.pruned - regime.accuracy, difference) <= 0.97


@pytest.mark.parametrize("regime", ENOUGH, ids=str)
def test_ra(regime: Regime):
    assert 0.925 <= coverage(regime, regime.pruned / regime.accuracy, ra) <= 0.975


@pytest.mark.parametrize("regime", ENOUGH + SPARSE, ids=str)
def test_accuracies(regime: Regime):
    """With ten images or fewer, and with accuracies that leave a few errors in all, wider than they need to be."""
    few = regime.images <= 10 or regime.images * (1 - regime.accuracy) < 10
    assert 0.93 <= coverage(regime, regime.accuracy, accuracy) <= (1.0 if few else 0.975)


@pytest.mark.parametrize("regime", SPARSE, ids=str)
def test_few_questions_that_differ_give_an_interval_that_errs_on_the_wide_side(regime: Regime):
    assert coverage(regime, regime.pruned - regime.accuracy, difference) >= 0.93
    assert coverage(regime, regime.pruned / regime.accuracy, ra) >= 0.93


def test_ra_over_three_benchmarks():
    regimes = [Regime(30, "1-11", 0.7, 0.5, 0.3), Regime(100, "one", 0.8, 0.0, 0.2), Regime(50, "1-8", 0.95, 0.3, 0.2)]
    truth, covered = np.mean([regime.pruned / regime.accuracy for regime in regimes]), 0
    for seed in range(EXPERIMENTS):
        drawn = [regime.draw(3 * seed + number) for number, regime in enumerate(regimes)]
        found = ra_macro([(pruned, full, image) for full, pruned, image in drawn])
        covered += found.low <= truth <= found.high
    assert 0.925 <= covered / EXPERIMENTS <= 0.975


@pytest.mark.parametrize("regime", [Regime(30, "1-8", 0.7, 0.5, 0.3), Regime(320, "1-8", 0.9, 0.3, 0.1)], ids=str)
def test_mcnemar_by_image_raises_few_false_alarms(regime: Regime):
    """Two arms that are damaged alike: p < 0.05 in at most 5 % of the experiments, but for chance."""
    alarms = 0
    for seed in range(EXPERIMENTS):
        full, first, image = regime.draw(seed)
        random = np.random.default_rng(seed)
        swapped = random.random(regime.images)[image] < 0.5  # which arm is damaged: a coin for each image
        alarms += mcnemar(np.where(swapped, first, full), np.where(swapped, full, first), image) < 0.05
    assert 0.02 <= alarms / EXPERIMENTS <= 0.065


@pytest.mark.parametrize("tail", ["normal", "heavy"])
def test_latency_ratios_with_session_effects(tail: str):
    """Five sessions of 10 pairs on 2 shapes; the method takes 0.9 of the time; sessions differ by 3 % or so.

    heavy: the session effect is Student's t with 5 degrees of freedom, one repetition in ten takes up to twice as long.
    """
    covered = 0
    for seed in range(EXPERIMENTS):
        found = summarise(_latency_rows(np.random.default_rng(seed), tail))
        covered += found.low <= 0.1 <= found.high
    assert 0.93 <= covered / EXPERIMENTS <= 0.97


def _latency_rows(random: np.random.Generator, tail: str) -> list[LatencyRow]:
    effect = random.normal(size=5) if tail == "normal" else random.standard_t(5, size=5)
    noise = random.normal(scale=0.02, size=(5, 2, 10, 2))
    if tail == "heavy":
        noise += (random.random(noise.shape) < 0.1) * random.random(noise.shape) * np.log(2)
    logs = np.log(50) + noise
    logs[..., 1] += np.log(0.9) + 0.03 * effect[:, None, None]
    return [
        LatencyRow(
            f"s{at[0]}", f"shape {at[1]}", at[2], ("base", "pruned")[at[3]], at[3], False, "total", ms, "device_event"
        )
        for at, ms in np.ndenumerate(np.exp(logs))
    ]
