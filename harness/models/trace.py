"""What one forward pass really ran, noted as it happens and read afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from harness.models.merging import Decision, merged_masks
from harness.records.records import Realised
from methods.base import Shape

PATCHES = "patches"  # the label of the mask over single patches, where a method packed them into units


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
