"""Downsample: the control that shrinks the image. It needs no pruner at all: the model sees a smaller picture.

Ours; no paper. Each image's H x W grid of units becomes h x w with h * w <= k, its share of the budget (`ops.share`):

* for every height h up to H the widest w <= W with h * w <= k is looked at;
* the grid nearest in aspect wins, by |log(h / w) - log(H / W)|; of two as near the one of more tokens, then the lower;
* the pixels are resampled, bicubic and antialiased, before patches are cut, so that the ViT sees fewer of them too.

Not every number is a product of two fitting sides: the tokens may fall short of the budget. Both numbers are in every
row; the shortfall is allowed for this control alone. A model that cuts pictures into tiles of one size is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from methods.base import (
    PRE_TOKENIZATION,
    Budget,
    BudgetInfeasible,
    MissingSignal,
    Plan,
    Pruner,
    Resize,
    Shape,
    Site,
    View,
)
from methods.ops import share

SITE = Site(PRE_TOKENIZATION)


@dataclass(frozen=True)
class Downsample(Pruner):
    """At most k tokens: those of a smaller image."""

    name = "downsample"
    title = "Image downsampling"
    hooks = (PRE_TOKENIZATION,)
    cost = "O(pixels)"

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        images = len(shape.grids)
        if shape.tiles:
            raise MissingSignal(
                "downsample resamples pictures to other sizes, which a model that cuts them into tiles of one size "
                "(LLaVA-NeXT) does not take; use --method pool or grid"
            )
        if budget.kind == "native":
            raise BudgetInfeasible("downsample has no budget of its own; ask for one, such as --budget 50%", images)
        if budget.tokens < images:
            raise BudgetInfeasible(
                f"downsample needs >= {images} tokens, one an image, got {budget.tokens}; raise --budget", images
            )
        k = sum(rows * columns for rows, columns in smaller_grids(budget.tokens, shape))
        return Plan({SITE: budget.tokens}, (k,) * shape.llm_layers)

    def before_tokenization(self, view: View) -> tuple[Resize, ...]:
        return tuple(Resize(rows, columns) for rows, columns in smaller_grids(view.keep, view.shape))

    def alive_after(self, site: Site, plan: Plan, shape: Shape) -> tuple[tuple[int, int], ...]:
        return tuple((rows * columns, 0) for rows, columns in smaller_grids(plan.keeps[SITE], shape))


def smaller_grids(k: int, shape: Shape) -> tuple[tuple[int, int], ...]:
    """Rows and columns of every image, at most `k` units together; at least one unit an image."""
    counts = share(k, shape.images, least=1)
    return tuple(nearest_grid(count, grid) for count, grid in zip(counts, shape.grids, strict=True))


def nearest_grid(k: int, grid: tuple[int, int]) -> tuple[int, int]:
    """The rows x columns <= k inside `grid` whose aspect is nearest to its own. 1 <= k."""
    rows, columns = grid
    fitting = [(height, min(columns, k // height)) for height in range(1, min(rows, k) + 1)]
    return min(fitting, key=lambda at: (_stretch(at, grid), -at[0] * at[1]))


def _stretch(grid: tuple[int, int], of: tuple[int, int]) -> float:
    """How far the aspects of two grids lie apart; rounded, so that mirrored grids tie."""
    return round(abs(math.log(grid[0] * of[1] / (grid[1] * of[0]))), 9)
