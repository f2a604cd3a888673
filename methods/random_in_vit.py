"""Random units inside the ViT: the control of methods that act there.

Ours; no paper. The draw of `random_pre_tokenization`, made at QuietPrune's three cuts on its geometric schedule: as
many units enter every ViT block and LLM layer as under QuietPrune without its aggregate and [Q-CLS]. This control minus
`random` is the price of the hook point, whoever chooses there.

* Each image keeps its share of the budget (`ops.share`) and one unit at least. What a cut dropped is gone for the next.
* Survivors stay in raster order at their original positions.
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import IN_VIT, Budget, Plan, Selection, Shape, View
from methods.quietprune import QuietPrune
from methods.random_pre_tokenization import RandomPreTokenization

THREE_CUTS = QuietPrune(guidance="saliency", aggregate=False)


@dataclass(frozen=True)
class RandomInVit(RandomPreTokenization):
    """k of n units in three cuts, every subset of an image's share equally likely."""

    name = "random_in_vit"
    title = "Random in the ViT"
    hooks = (IN_VIT,)
    cost = "O(n) a cut"

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        super().plan(budget, shape)  # refuses what has no unit for each image
        return THREE_CUTS.plan(budget, shape)

    def in_vit(self, view: View) -> Selection:
        return self.before_tokenization(view)
