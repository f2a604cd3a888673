"""Pool: the control that averages neighbouring tokens. It looks at no content, and drops none of it.

Ours; no paper. Each image's grid is split into exactly k rectangles, and the tokens of a rectangle become their mean:

* a rectangle of the H x W grid that must yield k tokens is cut across its longer side (columns where both are equal);
* floor(k / 2) tokens fall to the first part, whose length is that share of the side, rounded to the nearest cell;
* where a part would then hold fewer cells than tokens, tokens move over to the other one;
* the same goes on in both parts until each rectangle yields one token.

A mean stands at the position of the cell in the middle of its rectangle (the upper and left one where there are two);
tokens come in the raster order of these cells. Each image gets its share of k in proportion to its size (`ops.share`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from methods.base import INTERFACE, Budget, BudgetInfeasible, Plan, Pruner, Selection, Shape, View
from methods.ops import share

Rectangle = tuple[int, int, int, int]  # first row, first column, rows, columns


@dataclass(frozen=True)
class Pool(Pruner):
    """k means of n tokens, each over one rectangle of the grid."""

    name = "pool"
    title = "Average pooling"
    hooks = (INTERFACE,)
    cost = "O(n d)"

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind == "native":
            raise BudgetInfeasible("pool has no budget of its own; ask for one, such as --budget 50%", 1)
        return super().plan(budget, shape)

    def at_interface(self, view: View) -> Selection:
        keep, assign, start = [], [], 0
        counts = share(view.keep, view.shape.images)
        for (rows, columns), k in zip(view.shape.grids, counts, strict=True):
            centre, cell = pooled(rows, columns, k)
            assign.append(torch.where(cell < 0, cell, cell + sum(map(len, keep))))
            keep.append(centre + start)
            start += rows * columns
        slot = torch.cat(assign)  # (n,) the rectangle of each token
        weight = 1 / torch.bincount(slot + 1)[slot + 1].float()  # the cells of each token's rectangle
        tensors = (torch.cat(keep), slot, weight)
        return Selection(*(tensor.to(view.hidden.device, non_blocking=True) for tensor in tensors))


def pooled(rows: int, columns: int, k: int) -> tuple[Tensor, Tensor]:
    """Middle cells of the k rectangles, (k,) ascending, and the rectangle of each cell, (rows * columns,).

    0 <= k <= rows * columns; with k = 0 every cell is dropped (-1).
    """
    cell = torch.full((rows, columns), -1)
    middles = sorted((_middle(rectangle, columns), rectangle) for rectangle in split((0, 0, rows, columns), k))
    for slot, (_, (top, left, height, width)) in enumerate(middles):
        cell[top : top + height, left : left + width] = slot
    return torch.tensor([middle for middle, _ in middles], dtype=torch.int64), cell.flatten()


def split(whole: Rectangle, k: int) -> list[Rectangle]:
    """k rectangles that tile `whole`, as even as the halving of k allows. 0 <= k <= its number of cells."""
    if k < 2:
        return [whole] * k
    top, left, height, width = whole
    length, across = max(height, width), min(height, width)
    first = k // 2
    at = min(max((2 * length * first + k) // (2 * k), 1), length - 1)  # length x first / k, half up
    first = min(max(first, k - (length - at) * across, 1), at * across)
    if width >= height:
        parts = (top, left, height, at), (top, left + at, height, width - at)
    else:
        parts = (top, left, at, width), (top + at, left, height - at, width)
    return split(parts[0], first) + split(parts[1], k - first)


def _middle(rectangle: Rectangle, columns: int) -> int:
    top, left, height, width = rectangle
    return (top + (height - 1) // 2) * columns + left + (width - 1) // 2
