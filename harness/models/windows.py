"""The state of a ViT whose blocks attend within windows: rows are brought together window by window while it runs.

A window keeps its members: after a cut it holds those of its units that are left, and one without any is gone. A
method's own tokens ([Q-CLS]) and an aggregate belong to no place of the picture; in a windowed block the extra tokens
of an image are a window of their own, and so is its aggregate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.models.vision import VisionState

NOWHERE = torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True)
class WindowedState(VisionState):
    """A vision state that knows its windows.

    window (N,): of every unit that the prompt had, image after image, numbered through; sizes: how many of these each
    window had. first: where each image's units begin among the N.
    windows: tokens of each sequence that attends to itself in a windowed block; () while rows stand in the prompt's
    order. back (n,): where the rows of the prompt's order stand now.
    """

    window: Tensor = NOWHERE
    sizes: tuple[int, ...] = ()
    first: Tensor = NOWHERE
    windows: tuple[int, ...] = ()
    back: Tensor = NOWHERE

    def by_window(self) -> WindowedState:
        """The same rows window by window, each in the order in which they stood. Waits for the device once a cut."""
        if self.windows:
            return self
        window = self.window[self.first[self.image] + self.unit // self.packs]  # (n,)
        order = torch.argsort(window, stable=True)
        rows = [size * self.packs for size in self.sizes]
        if order.shape[0] != sum(rows):
            rows = torch.bincount(window, minlength=len(rows)).tolist()
        return replace(self._ordered(order), windows=self._lengths(rows), back=torch.argsort(order))

    def in_order(self) -> WindowedState:
        if not self.windows:
            return self
        return replace(self._ordered(self.back), windows=(), back=NOWHERE)

    def _ordered(self, order: Tensor) -> WindowedState:
        """Rows in another order, images apart as they were."""
        assert not self.taps
        tables = {name: self._moved(getattr(self, name), order) for name in ("hidden", "cos", "sin")}
        return replace(self, **tables, **{name: getattr(self, name)[order] for name in ("unit", "image", "size")})

    def _moved(self, packed: Tensor, order: Tensor) -> Tensor:
        fronts, rows, aggregates = self.split(packed)
        return self.join(fronts, rows[order], aggregates)

    def _lengths(self, rows: list[int]) -> tuple[int, ...]:
        """Tokens of each window of today, image after image; `rows` of each window that there ever was."""
        lengths, waiting = [], iter(rows)
        for segment in self.segments:
            lengths.append(segment.front)
            missing = segment.units
            while missing:
                alive = next(waiting)
                lengths.append(alive * self.patches)
                missing -= alive
            lengths.append(int(segment.aggregate))
        return tuple(length for length in lengths if length)
