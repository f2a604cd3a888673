"""Tokens of each ViT block, told from how many units of each image are alive there: in images, tiles and windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.flops.dims import ModelDims
from harness.records.records import Realised
from methods.base import Shape
from methods.ops import share

Grid = tuple[int, int]
Rows = tuple[tuple[int, int], ...]  # units and aggregates of each image, or of each tile where images have several
Tokens = tuple[int, ...]


def window_sizes(grid: Grid, side: int) -> tuple[int, ...]:
    """Units of each window of an image of rows x columns units, row by row; those at the far edges may be smaller."""
    heights, widths = ([min(side, length - start) for start in range(0, length, side)] for length in grid)
    return tuple(height * width for height in heights for width in widths)


def window_tokens(dims: ModelDims, grid: Grid, units: int, aggregates: int, extra: int) -> Tokens:
    """Tokens of each window of an image of which `units` are alive; extra tokens and an aggregate stand for themselves.

    Exact while all units are there. Then an estimate: the picture decides which go, here all windows lose alike.
    """
    sizes = window_sizes(grid, dims.vit_window)
    alive = [dims.unit_patches * size for size in share(units, sizes) if size]
    return tuple(length for length in (dims.vit_prefix_tokens + extra, *alive, aggregates) if length)


def whole(counts: Sequence[int]) -> Rows:
    """Rows of images that hold units alone."""
    return tuple((units, 0) for units in counts)


@dataclass(frozen=True)
class Tower:
    """The ViT on one sample, in numbers. extra: a method's own tokens in front of each image (or tile)."""

    dims: ModelDims
    shape: Shape
    extra: int = 0

    @property
    def others(self) -> int:
        """Tokens of an image that are neither units nor an aggregate: the tower's prefix, the method's extra ones."""
        return self.dims.vit_prefix_tokens + self.extra

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Of each image; of each tile the units that are visual tokens."""
        return tuple((1, units) for _, _, units in self.shape.tiles) if self.shape.tiles else self.shape.grids

    def entering(self) -> Rows:
        """Rows of the first block where no pixels were chosen: the padding of tiles too, which no unit stands for.

        Tiles are of one patch a unit, so that padding can be counted in units; the first cut ends it.
        """
        return whole([patches for _, patches, _ in self.shape.tiles] if self.shape.tiles else self.shape.images)

    def spread(self, rows: Rows, seen: Tokens = ()) -> Rows:
        """Rows of images as rows of what attends to itself: of their tiles, where they have any.

        seen: the tokens of each tile where a run has shown them; without, an image's units are shared by its tiles'
        sizes. The picture decides from which tiles units go, and a method sees images, not tiles. An image's aggregate
        stands in its first tile.
        """
        if not self.shape.tiles:
            return rows
        spread: list[tuple[int, int]] = []
        for image, (units, aggregates) in enumerate(rows):
            sizes = tuple(shown for owner, _, shown in self.shape.tiles if owner == image)
            spread += [(part, 0 if place else aggregates) for place, part in enumerate(share(units, sizes))]
        if not seen:
            return tuple(spread)
        patches = self.dims.unit_patches
        pairs = zip(seen, spread, strict=True)
        return tuple(((tokens - self.others - aggregates) // patches, aggregates) for tokens, (_, aggregates) in pairs)

    def tokens(self, rows: Rows) -> Tokens:
        """Of each image or tile: patches of the units, an aggregate is one token."""
        return tuple(units * self.dims.unit_patches + aggregates + self.others for units, aggregates in rows)

    def is_windowed(self, block: int) -> bool:
        """True if tokens attend within windows in this block."""
        return self.dims.vit_window > 0 and block not in self.dims.vit_full_blocks

    def windows(self, block: int, rows: Rows) -> Iterator[Tokens]:
        """Tokens of the windows of each image in a block; () where the image attends as a whole."""
        for grid, (units, aggregates) in zip(self.grids, rows, strict=True):
            windowed = self.is_windowed(block)
            yield window_tokens(self.dims, grid, units, aggregates, self.extra) if windowed else ()

    def attended(self, block: int, rows: Rows) -> Tokens:
        """Tokens of each sequence that attends to itself in a block: images, tiles or windows."""
        if not self.is_windowed(block):
            return self.tokens(rows)
        return tuple(length for image in self.windows(block, rows) for length in image)


def tokens_that_ran(ran: Realised, half: int) -> Tokens:
    """Tokens of each image or tile in the attention (even) or the MLP (odd) of block half // 2 of a run."""
    blocks = ran.vit_mlp_tokens if half % 2 and ran.vit_mlp_tokens else ran.vit_tokens
    return blocks[half // 2]
