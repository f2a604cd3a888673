"""Random units of pixels: the control of methods that act before the ViT.

Ours; no paper. The draw of `random`, made where V-PRUNE makes its choice, so that the ViT never sees what is dropped.
This control minus `random` is the price of the hook point, whoever chooses there.

* Each image keeps its share of the budget (`ops.share`) and one unit at least: a ViT cannot run on none.
* Survivors stay in raster order at their original positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods.base import PRE_TOKENIZATION, Budget, BudgetInfeasible, Plan, Selection, Shape, Site, View
from methods.ops import share
from methods.random import Random


@dataclass(frozen=True)
class RandomPreTokenization(Random):
    """k of n units of pixels, every subset of an image's share equally likely."""

    name = "random_pre_tokenization"
    title = "Random before the ViT"
    hooks = (PRE_TOKENIZATION,)

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        images = len(shape.images)
        if budget.kind != "native" and budget.tokens < images:
            raise BudgetInfeasible(
                f"{self.name} keeps >= 1 token of each image, here {images}, got {budget.tokens}; raise --budget",
                images,
            )
        return super().plan(budget, shape)

    def before_tokenization(self, view: View) -> Selection:
        generator, drawn, first = view.generator(), [], 0
        both = (share(rows, view.shape.images, least=1) for rows in (view.n, view.keep))  # shares of later cuts nest
        for n, k in zip(*both, strict=True):
            drawn.append(first + torch.randperm(n, generator=generator)[:k])
            first += n
        return Selection(torch.cat(drawn).sort().values.to(view.hidden.device, non_blocking=True))

    def alive_after(self, site: Site, plan: Plan, shape: Shape) -> tuple[tuple[int, int], ...]:
        return tuple((units, 0) for units in share(plan.keeps[site], shape.images, least=1))
