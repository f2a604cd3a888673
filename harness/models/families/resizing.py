"""Images put together from their units of pixels, resampled, and cut into units again."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

Grid = tuple[int, int]


def resampled(units: Tensor, grids: tuple[Grid, ...], wanted: tuple[Grid, ...]) -> Tensor:
    """Units of pixels of all images at their wanted grids: bicubic, antialiased, in [0, 1].

    units: (n, 3, u, u) in [0, 1], raster order image after image; grids, wanted: rows and columns of units of each.
    """
    parts = units.split([rows * columns for rows, columns in grids])
    side = units.shape[-1]
    smaller = []
    for part, grid, (rows, columns) in zip(parts, grids, wanted, strict=True):
        whole = functional.interpolate(
            assembled(part, grid)[None], size=(rows * side, columns * side), mode="bicubic", antialias=True
        )
        smaller.append(cut(whole[0].clamp(0, 1), side))
    return torch.cat(smaller)


def assembled(units: Tensor, grid: Grid) -> Tensor:
    """One image (3, H, W) from its units (rows * columns, 3, u, u)."""
    rows, columns = grid
    side = units.shape[-1]
    return units.view(rows, columns, 3, side, side).permute(2, 0, 3, 1, 4).reshape(3, rows * side, columns * side)


def cut(image: Tensor, side: int) -> Tensor:
    """The inverse of `assembled`: units of `side` pixels, (rows * columns, 3, side, side)."""
    rows, columns = image.shape[1] // side, image.shape[2] // side
    return image.view(3, rows, side, columns, side).permute(1, 3, 0, 2, 4).reshape(-1, 3, side, side)
