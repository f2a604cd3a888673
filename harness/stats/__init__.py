"""Statistics of scores: intervals, tests, agreement, draws, fronts. Pure functions of arrays.

Scores lie in [0, 1], one entry per sample, in the same order in every argument; clusters are labels, one per sample
(the image: questions about one image are not independent). Arrays of unlike length raise ValueError, and so do no
samples at all. Intervals are 95 % unless said otherwise.
"""

from harness.stats.fronts import drawn_means, front_probabilities, on_front, rank_intervals
from harness.stats.intervals import (
    Interval,
    accuracy_interval,
    chance_corrected_ra,
    minimum_detectable_effect,
    paired_difference,
    ra_interval,
    ra_macro,
)
from harness.stats.significance import Flips, flips, holm, loyalty, mcnemar

__all__ = [
    "Flips",
    "Interval",
    "accuracy_interval",
    "chance_corrected_ra",
    "drawn_means",
    "flips",
    "front_probabilities",
    "holm",
    "loyalty",
    "mcnemar",
    "minimum_detectable_effect",
    "on_front",
    "paired_difference",
    "ra_interval",
    "ra_macro",
    "rank_intervals",
]
