"""PixelPrune: drop the blocks of pixels that their neighbours foretell, before anything is tokenised.

Paper: "PixelPrune: Pixel-Level Adaptive Visual Token Reduction via Predictive Coding", arXiv:2604.00886. The authors'
code (OPPO-Mente-Lab/PixelPrune @ a870e31) is Apache-2.0; nothing here is taken from it. Written from a description of
what it does, and compared with its outputs in tests/golden.

Each image alone, in raster order, on the pixels as the processor resized them. A block is what becomes one LLM token.
With A its left, B its upper and C its upper left neighbour, the prediction is B if C is like A and not like B, else A
(in the first row A, in the first column B). A block stays unless it is like its prediction; the first one stays. "Like"
is a distance of at most tau: the largest difference of any value ("max"), the mean ("mae") or the root of the mean
square ("rmse"). At tau = 0 equal blocks go and nothing is lost; above it a dropped block has the value of its
prediction when others are compared with it (anchored), so that errors do not add up. Documents and screens have many
equal blocks, photographs next to none.

The method has no budget of its own size: how many stay is in the picture. Scans "raster" and "serpentine" compare with
the last block that stayed along the line, in native runs only.

Ours: exact budgets ("adapted"). The k blocks that are farthest from their predictions stay (of original neighbours,
likeness at tau), the first one always, so that kept sets are nested. The native rule has no part in that but its
predictions. Several images share a budget by size, at least one block each.

Floor: a block of each image.

Departures
* A video is refused by the harness (theirs ends in an error).
* Their options to prune behind a layer of the ViT, or behind it, and their baselines (random, connected components) are
  left out.
* On models whose processors pad or cut into tiles the blocks are what those leave; a unit of LLaVA is one patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from methods.base import (
    PRE_TOKENIZATION,
    Budget,
    BudgetInfeasible,
    Plan,
    Pruner,
    Range,
    Selection,
    Shape,
    Site,
    View,
)
from methods.ops import share, top_k

Metric = Literal["max", "mae", "rmse"]
Scan = Literal["pred_2d", "raster", "serpentine"]


@dataclass(frozen=True)
class PixelPrune(Pruner):
    """tau: like up to this distance, of values in [0, 1]. anchored: neighbours are what stands for them (tau > 0)."""

    name = "pixelprune"
    title = "PixelPrune"
    paper = "arXiv:2604.00886"
    licence = "Apache-2.0 (not used here: independent implementation)"
    hooks = (PRE_TOKENIZATION,)
    cost = "O(pixels): three distances a block"
    synchronises = "in native runs: the count is in the picture, and with tau > 0 each block needs the one before it"

    tau: Annotated[float, Range(0)] = 0.0
    metric: Metric = "max"
    anchored: bool = True
    scan: Scan = "pred_2d"

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        images = len(shape.grids)
        if budget.kind != "native" and budget.tokens < images:
            raise BudgetInfeasible(
                f"pixelprune keeps >= 1 token of each image, here {images}, got {budget.tokens}; raise --budget", images
            )
        if budget.kind != "native" and self.scan != "pred_2d":
            raise BudgetInfeasible(f"scan={self.scan} has no order for exact budgets; use --budget native", shape.n)
        return super().plan(budget, shape)

    def before_tokenization(self, view: View) -> Selection:
        sizes = view.shape.images
        shares = [None] * len(sizes) if view.keep is None else share(view.keep, sizes, least=1)
        kept, start = [], 0
        for pixels, (rows, columns), k in zip(view.hidden.split(sizes), view.shape.grids, shares, strict=True):
            blocks = pixels.flatten(1).unflatten(0, (rows, columns))  # (rows, columns, values)
            kept.append(start + (self.foretold(blocks) if k is None else self.farthest(blocks, k)))
            start += len(pixels)
        return Selection(torch.cat(kept))

    def foretold(self, blocks: Tensor) -> Tensor:
        """Native mode: the places of the blocks that stay, ascending. blocks: (rows, columns, values)."""
        if self.scan != "pred_2d":
            return _along(blocks, self.tau, self.metric, self.scan)
        if self.anchored and self.tau > 0:
            return _anchored(blocks, self.tau, self.metric)
        return torch.nonzero(~(self.surprise(blocks) <= self.tau)).flatten()

    def farthest(self, blocks: Tensor, k: int) -> Tensor:
        """Exact mode: the places of k blocks, ascending."""
        return top_k(self.surprise(blocks), k)

    def surprise(self, blocks: Tensor) -> Tensor:
        """Distance of each block from what its original neighbours foretell, (rows x columns,); inf: the first one."""
        x, left, above = blocks[1:, 1:], blocks[1:, :-1], blocks[:-1, 1:]
        corner = blocks[:-1, :-1]
        take_above = (distance(corner, left, self.metric) <= self.tau) & ~(
            distance(corner, above, self.metric) <= self.tau
        )
        out = blocks.new_full(blocks.shape[:2], torch.inf)
        out[0, 1:] = distance(blocks[0, 1:], blocks[0, :-1], self.metric)
        out[1:, 0] = distance(blocks[1:, 0], blocks[:-1, 0], self.metric)
        out[1:, 1:] = torch.where(take_above, distance(x, above, self.metric), distance(x, left, self.metric))
        return out.flatten()

    def alive_after(self, site: Site, plan: Plan, shape: Shape) -> tuple[tuple[int, int], ...]:
        return tuple((units, 0) for units in share(plan.keeps[site], shape.images, least=1))


def distance(one: Tensor, other: Tensor, metric: Metric) -> Tensor:
    """Distance of blocks, (..., values) each -> (...)."""
    apart = one - other
    if metric == "max":
        return apart.abs().amax(dim=-1)
    return apart.abs().mean(dim=-1) if metric == "mae" else apart.square().mean(dim=-1).sqrt()


def _anchored(blocks: Tensor, tau: float, metric: Metric) -> Tensor:
    """The walk on values that stand for blocks: of each, the place of the one that was kept for it."""
    device, (rows, columns, _) = blocks.device, blocks.shape
    flat = blocks.flatten(0, 1).cpu()  # every step needs the one before it: on the host, once
    stands: list[int] = []

    def alike(one: int, other: int) -> bool:
        return one == other or bool(distance(flat[one], flat[other], metric) <= tau)

    for place in range(rows * columns):
        row, column = divmod(place, columns)
        left = stands[place - 1] if column else None
        above = stands[place - columns] if row else None
        if left is not None and above is not None:
            corner = stands[place - columns - 1]
            predicted = above if alike(corner, left) and not alike(corner, above) else left
        else:
            predicted = left if above is None else above
        stands.append(predicted if predicted is not None and alike(place, predicted) else place)
    kept = [place for place, what in enumerate(stands) if what == place]
    return torch.tensor(kept, device=device)


def _along(blocks: Tensor, tau: float, metric: Metric, scan: Scan) -> Tensor:
    """Run lengths along the rows, every other one from right to left ("serpentine"): like the last that stayed, go."""
    device, (rows, columns, _) = blocks.device, blocks.shape
    flat = blocks.flatten(0, 1).cpu()
    kept: list[int] = []
    for row in range(rows):
        backwards = scan == "serpentine" and row % 2
        for column in reversed(range(columns)) if backwards else range(columns):
            place = row * columns + column
            if not kept or not bool(distance(flat[place], flat[kept[-1]], metric) <= tau):
                kept.append(place)
    return torch.tensor(sorted(kept), device=device)
