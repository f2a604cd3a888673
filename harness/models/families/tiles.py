"""Tiles of one length as one batch: a ViT that attends tile by tile runs once for each length that there is.

Tiles of LLaVA-NeXT that hold padding keep their tokens in the tower's own order until somebody looks at the rows.
Packed tensors hold tile after tile; lengths are the tokens of each, known on the host.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.models.attention import Capture
from harness.models.signals import image_by_image
from harness.models.vision_state import NOWHERE, VisionState

Lengths = tuple[int, ...]


@dataclass(frozen=True)
class TiledState(VisionState):
    """A vision state of tiles. back (N,): where the packed layout's tokens stand now; empty while they are in order."""

    back: Tensor = NOWHERE

    def in_order(self) -> TiledState:
        return replace(self, hidden=self.hidden[self.back], back=NOWHERE) if self.back.numel() else self

    def with_extra(self, tokens: list[Tensor]) -> VisionState:
        return VisionState.with_extra(self.in_order(), tokens)

    def captures_in_order(self, captures: list[Capture]) -> list[Capture]:
        """One capture a tile, its tokens as `in_order` puts them."""
        if not self.back.numel():
            return captures
        starts = torch.tensor([0, *self.lengths]).cumsum(0).tolist()
        orders = [part - start for part, start in zip(self.back.split(self.lengths), starts[:-1], strict=True)]
        return [
            replace(one, query=one.query[:, :, order], key=one.key[:, :, order])
            for one, order in zip(image_by_image(captures, self.lengths), orders, strict=True)
        ]


def batches(packed: Tensor, lengths: Lengths) -> list[Tensor]:
    """(N, ...) as one (tiles, tokens, ...) for each length, in the order in which lengths first occur."""
    groups = _members(lengths)
    if len(groups) == 1:
        return [packed.view(len(lengths), lengths[0], *packed.shape[1:])]
    parts = packed.split(lengths)
    return [torch.stack([parts[tile] for tile in group]) for group in groups]


def joined(batched: list[Tensor], lengths: Lengths) -> Tensor:
    """The inverse of `batches`."""
    if len(batched) == 1:
        return batched[0].flatten(0, 1)
    return torch.cat(_in_order([list(one) for one in batched], lengths))


def tile_by_tile(captures: list[Capture], lengths: Lengths) -> list[Capture]:
    """One capture a tile, from one for each of `batches`."""
    rows = [
        [capture.of_row(row, lengths[tile]) for row, tile in enumerate(group)]
        for group, capture in zip(_members(lengths), captures, strict=True)
    ]
    return _in_order(rows, lengths)


def _members(lengths: Lengths) -> list[list[int]]:
    """Tiles of each length."""
    return [[tile for tile, one in enumerate(lengths) if one == length] for length in dict.fromkeys(lengths)]


def _in_order(by_group: list[list], lengths: Lengths) -> list:
    """Values of groups as a list of one a tile."""
    groups = zip(_members(lengths), by_group, strict=True)
    of = {tile: value for group, values in groups for tile, value in zip(group, values, strict=True)}
    return [of[tile] for tile in range(len(lengths))]
