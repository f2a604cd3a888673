"""Boxes in the words of a model, against a target box."""

from __future__ import annotations

import re

from harness.records.records import Sample

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_BOX = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")
Box = tuple[float, float, float, float]


def hits(prediction: str, sample: Sample) -> float | None:
    """Whether the first "[x0, y0, x1, y1]" overlaps the expected box by more than half; None without one.

    Both in shares of the image's size. Source: RefCOCO's accuracy at IoU 0.5.
    """
    found, expected = read_box(prediction), read_box(sample.answer)
    assert expected is not None, sample.id
    return None if found is None else float(overlap(found, expected) > 0.5)


def read_box(text: str) -> Box | None:
    """The first bracketed list of four numbers."""
    found = _BOX.search(text)
    if found is None:
        return None
    x0, y0, x1, y1 = map(float, found.groups())
    return x0, y0, x1, y1


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes x0 y0 x1 y1, in [0, 1]."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = area(one) + area(other) - shared
    return shared / union if union > 0 else 0.0


def area(box: Box) -> float:
    """Of a box x0 y0 x1 y1; 0 when its corners are swapped."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)
