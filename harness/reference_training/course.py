"""The course of a training run as functions of consumed seconds: stage, image size, crowding, rates, weights of losses.

Everything depends on the share of the time that is used up, so a resumed run goes on where it stopped, and a longer
run has the same shape. One vision-only stage, then one cosine to zero: restarted rates and left-out families cost
much (docs/reference-model.md).
"""

import math
from dataclasses import dataclass

GAZE_UNTIL = 0.7  # share of the language stage over which the pull on attention fades to nothing


@dataclass(frozen=True)
class Moment:
    """What holds now. images: per worker and step; rate: 0..1, times each optimizer's peak."""

    speaking: bool
    side: int
    images: int
    crowded_share: float
    rate: float
    auxiliary_weight: float
    gaze_weight: float = 0.0


@dataclass(frozen=True)
class Course:
    """A run of `seconds` in all, of which `seeing_seconds` for the vision stage."""

    seconds: float
    seeing_seconds: float

    def at(self, elapsed: float) -> Moment:
        """The moment after `elapsed` consumed seconds. Raises ValueError when the time is over."""
        if elapsed >= self.seconds:
            raise ValueError(f"the course lasts {self.seconds:.0f} s, asked at {elapsed:.0f} s")
        warm = min(1.0, (elapsed + 1.0) / 45.0)
        if elapsed < self.seeing_seconds:
            return Moment(False, 256, 12, 0.5, warm, 1.0)
        spoken = elapsed - self.seeing_seconds
        used = spoken / (self.seconds - self.seeing_seconds)
        rate = min(warm, 0.2 + spoken / 60.0, 1.0) * 0.5 * (1 + math.cos(math.pi * used))
        side, images = (128, 12) if used < 0.12 else (192, 10) if used < 0.28 else (256, 8)
        crowded = 0.25 + 0.2 * used
        gaze = 1.5 * max(0.0, 1.0 - used / GAZE_UNTIL)
        return Moment(True, side, images, crowded, rate, 0.4 if used < 0.5 else 0.2, gaze)
