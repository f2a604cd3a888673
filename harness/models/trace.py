"""What one forward pass really ran, noted as it happens and read afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from harness.records.records import PATCHES, Realised
from methods.base import Selection, Shape

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


@dataclass
class Trace:
    """What ran, as tensors and host integers; `realised` reads the tensors, so ask outside timed regions."""

    shape: Shape
    text_tokens: int
    vit_tokens: list[tuple[int, ...]] = field(default_factory=list)
    vit_mlp_tokens: list[tuple[int, ...]] = field(default_factory=list)
    vit_attended: list[tuple[int, ...]] = field(default_factory=list)
    merged_units: int = 0
    sites: list[tuple[str, int, int, int]] = field(default_factory=list)
    selection_flops: int = 0
    kept: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # label -> image, unit
    decisions: list[tuple[str, Decision]] = field(default_factory=list)  # label -> what was decided over which rows
    entering: list[int] = field(default_factory=list)

    def spend(self, flops: int) -> None:
        """Note FLOPs of a decision, or of what was computed for it."""
        self.selection_flops += flops

    @cached_property
    def realised(self) -> Realised:
        return Realised(
            vit_tokens=tuple(self.vit_tokens),
            merged_units=self.merged_units,
            entering=tuple(self.entering),
            text_tokens=self.text_tokens,
            sites=tuple(self.sites),
            selection_flops=self.selection_flops,
            kept={label: self._mask(label, *rows) for label, rows in self.kept.items()},
            merged=merged_masks(self.decisions, self._starts(1)),
            vit_mlp_tokens=() if self.vit_mlp_tokens == self.vit_tokens else tuple(self.vit_mlp_tokens),
            vit_attended=() if self.vit_attended == self.vit_tokens else tuple(self.vit_attended),
        )

    def _mask(self, label: str, image: Tensor, unit: Tensor) -> str:
        """Bits of the units (of the patches, under PATCHES) that a row stands for."""
        rows = self.shape.unit_patches if label == PATCHES else 1
        starts = self._starts(rows)
        bits = 0
        for where, which in zip(image.tolist(), unit.tolist(), strict=True):
            if which >= 0:
                bits |= 1 << (starts[where] + which)
        return format(bits, "x")

    def _starts(self, rows: int) -> list[int]:
        """The bit of each image's first row. rows: behind a unit."""
        return [rows * sum(self.shape.images[:index]) for index in range(len(self.shape.images))]
