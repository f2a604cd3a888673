"""Tiles of one length as one batch: a ViT that attends tile by tile runs once for each length that there is.

Packed tensors hold tile after tile; lengths are the tokens of each, known on the host.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.models.attention import Capture

Lengths = tuple[int, ...]


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
