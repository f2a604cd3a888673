"""How many tokens attend to one another where ViT blocks attend within windows: told from grids and counts alone."""

from __future__ import annotations

from harness.measure.dims import ModelDims
from methods.base import Shape
from methods.ops import share

Grid = tuple[int, int]


def window_sizes(grid: Grid, side: int) -> tuple[int, ...]:
    """Units of each window of an image of rows x columns units, row by row; those at the far edges may be smaller."""
    heights, widths = ([min(side, length - start) for start in range(0, length, side)] for length in grid)
    return tuple(height * width for height in heights for width in widths)


def is_windowed(dims: ModelDims, number: int) -> bool:
    """Whether a ViT block attends within windows."""
    return dims.vit_window > 0 and number not in dims.vit_full_blocks


def window_tokens(dims: ModelDims, grid: Grid, units: int, aggregates: int, extra: int) -> tuple[int, ...]:
    """Tokens of each window of an image of which `units` are alive; extra tokens and an aggregate stand for themselves.

    Exact while all units are there. Then an estimate: the picture decides which go, here all windows lose alike.
    """
    sizes = window_sizes(grid, dims.vit_window)
    alive = [dims.unit_patches * size for size in share(units, sizes) if size]
    return tuple(length for length in (dims.vit_prefix_tokens + extra, *alive, aggregates) if length)


def attended(
    dims: ModelDims, shape: Shape, number: int, rows: tuple[tuple[int, int], ...], tokens: tuple[int, ...], extra: int
) -> tuple[int, ...]:
    """Tokens of each sequence that attends to itself in a block. rows: units and aggregates of each image;
    tokens: all of each image."""
    if not is_windowed(dims, number):
        return tokens
    images = zip(shape.grids, rows, strict=True)
    return tuple(length for grid, (units, more) in images for length in window_tokens(dims, grid, units, more, extra))
