"""Grid: the control that keeps k tokens spread evenly over the image. It looks at no content at all.

Ours; no paper. Exactly k tokens for any k on any grid, the same ones every time:

* a = round(sqrt(k * H / W)) rows of the H x W grid are used (at least ceil(k / W), at most min(H, k)), so that
  rows lie about as far apart as columns;
* the k tokens are dealt to those rows as evenly as k allows: row i of a gets floor((i+1)k/a) - floor(ik/a);
* chosen rows, and chosen columns within a row, are the centres of equal parts: floor((j + 1/2) * length / parts).

Each image gets its share of k in proportion to its size (`ops.share`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from methods.base import INTERFACE, Budget, BudgetInfeasible, Plan, Pruner, Selection, Shape, View
from methods.ops import share


@dataclass(frozen=True)
class Grid(Pruner):
    """k of n tokens, evenly spaced over rows and columns."""

    name = "grid"
    title = "Uniform grid"
    hooks = (INTERFACE,)
    cost = "O(k)"

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind == "native":
            raise BudgetInfeasible("grid has no budget of its own; ask for one, such as --budget 50%", 1)
        return super().plan(budget, shape)

    def at_interface(self, view: View) -> Selection:
        kept, start = [], 0
        for (rows, columns), k in zip(view.shape.grids, share(view.keep, view.shape.images), strict=True):
            kept.append(start + evenly(rows, columns, k))
            start += rows * columns
        return Selection(torch.cat(kept).to(view.hidden.device, non_blocking=True))


def evenly(rows: int, columns: int, k: int) -> Tensor:
    """(k,) raster indices, ascending, spread evenly over a rows x columns grid. 0 <= k <= rows * columns."""
    if k == 0:
        return torch.zeros(0, dtype=torch.int64)
    used = round(math.sqrt(k * rows / columns))
    used = max(math.ceil(k / columns), min(used, rows, k))
    line = torch.arange(used)
    first = line * k // used  # (used,) tokens dealt to the lines before this one
    count = (line + 1) * k // used - first
    of = torch.repeat_interleave(line, count)  # (k,) the line of each token
    place = torch.arange(k) - first[of]  # (k,) its place on that line
    row = (2 * of + 1) * rows // (2 * used)
    column = (2 * place + 1) * columns // (2 * count[of])
    return row * columns + column
