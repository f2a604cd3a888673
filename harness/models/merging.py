"""Which units live on inside another unit's token: read off the decisions that were taken, after they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from methods.base import Selection

Row = tuple[int, int]  # image, unit (patch, where rows are patches); -1 for a row that is no unit


@dataclass(frozen=True)
class Decision:
    """A selection over rows; None: all of them become units, `packs` at a time, each in the place of its first.

    image, unit: (n,) of the rows; packs: how many of them stand behind one unit.
    """

    image: Tensor
    unit: Tensor
    selection: Selection | None
    packs: int = 1


def merged_masks(decisions: Sequence[tuple[str, Decision]], starts: Sequence[int]) -> dict[str, str]:
    """Site -> hexadecimal mask of the units without a row of their own that are part of one. starts: of each image.

    Part of a row: with a weight that is not 0, through all merges so far.
    """
    if not any(_merges(decision) for _, decision in decisions):
        return {label: "0" for label, decision in decisions if decision.selection is not None}
    inside: dict[Row, int] = {}  # row -> bits of the units that are part of it
    masks = {}
    for label, decision in decisions:
        inside = _after(decision, inside, starts)
        if decision.selection is None:
            continue
        own = parts = 0
        for (image, unit), bits in inside.items():
            own |= 1 << (starts[image] + unit // decision.packs) if unit >= 0 else 0
            parts |= bits
        masks[label] = format(parts & ~own, "x")
    return masks


def _merges(decision: Decision) -> bool:
    selection = decision.selection
    return selection is not None and (selection.assign is not None or selection.aggregate is not None)


def _after(decision: Decision, inside: dict[Row, int], starts: Sequence[int]) -> dict[Row, int]:
    """The units in each row that a decision leaves."""
    selection, packs = decision.selection, decision.packs
    rows = list(zip(decision.image.tolist(), decision.unit.tolist(), strict=True))
    bits = [inside.get(row, 1 << (starts[row[0]] + row[1] // packs) if row[1] >= 0 else 0) for row in rows]
    if selection is None:
        slots, joins = [(image, unit // packs) for image, unit in rows[::packs]], _packed(len(rows), packs)
    else:
        slots, joins = [rows[row] for row in selection.keep.tolist()], _joins(selection)
    after: dict[Row, int] = dict.fromkeys(slots, 0)
    for row, slot in joins:
        after[slots[slot]] |= bits[row]
    if selection is not None and selection.aggregate is not None:
        _gather(after, selection.aggregate.reshape(len(rows), -1).any(1).tolist(), rows, bits, slots)
    return after


def _gather(
    after: dict[Row, int], weighs: Sequence[bool], rows: Sequence[Row], bits: Sequence[int], slots: Sequence[Row]
) -> None:
    """Into each image's aggregate what weighs in it; an image that loses no row gets none."""
    left = Counter(image for image, _ in rows) - Counter(image for image, _ in slots)
    for (image, _), own, weighed in zip(rows, bits, weighs, strict=True):
        if weighed and left[image]:
            after[image, -1] = after.get((image, -1), 0) | own


def _packed(rows: int, packs: int) -> list[tuple[int, int]]:
    return [(row, row // packs) for row in range(rows)]


def _joins(selection: Selection) -> list[tuple[int, int]]:
    """(row, slot) of every row that is a part of a slot."""
    if selection.assign is None or selection.weight is None:
        return [(row, slot) for slot, row in enumerate(selection.keep.tolist())]
    pairs = zip(selection.assign.tolist(), selection.weight.tolist(), strict=True)
    return [(row, slot) for row, (slot, weight) in enumerate(pairs) if slot >= 0 and weight]
