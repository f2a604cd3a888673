"""Did the pruner keep what the question is about? A score of a pruner that needs no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Box = tuple[float, float, float, float]


def recall_of_target(
    boxes: Sequence[Box], size: tuple[int, int], grid: tuple[int, int], kept: Mapping[str, str]
) -> float | None:
    """Share of the target's units alive at the end, in [0, 1]; None without boxes.

    boxes: x0 y0 x1 y1 in pixels of the first image. size: its (width, height). grid: its (rows, columns) of units.
    kept: site label -> hex mask, as in Record; a unit is alive at the end if every site kept it (single patches, under
    "patches", are no units).
    A unit belongs to the target if a box overlaps it.
    """
    if not boxes:
        return None
    target = {unit for box in boxes for unit in units_of(box, size, grid)}
    if not target:
        return None
    masks = [int(mask, 16) for label, mask in kept.items() if label != "patches"]
    alive = [unit for unit in target if all(mask >> unit & 1 for mask in masks)]
    return len(alive) / len(target)


def units_of(box: Box, size: tuple[int, int], grid: tuple[int, int]) -> set[int]:
    """Raster indices of the units that a box overlaps with a positive area. Arguments as in `recall_of_target`."""
    (x0, y0, x1, y1), (width, height), (rows, columns) = box, size, grid
    unit_width, unit_height = width / columns, height / rows
    return {
        row * columns + column
        for row in range(rows)
        for column in range(columns)
        if x0 < (column + 1) * unit_width
        and x1 > column * unit_width
        and y0 < (row + 1) * unit_height
        and y1 > row * unit_height
    }
