"""VisPruner: keep the tokens that the ViT attends to most, and of the rest those that resemble each other least.

Paper: Zhang et al., "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in VLMs",
ICCV 2025, arXiv:2412.01818 (first called FasterVLM). The authors' code (Theia-4869/VisPruner @ aefa01a) is Apache-2.0;
nothing here is taken from it. Written from a description of what it does, and compared with its outputs in
tests/golden.

Each image alone, k of its n tokens: floor(k * important_ratio) are those with the most attention from CLS, mean over
heads, in the layer whose output the projector takes. The others stand in a list, most attended first. While it is too
long, each token at an even place is compared by cosine with all those at odd places, and the 8 with the most similar
partner go; the survivors of the even places, most similar first, and then those of the odd places are the new list.
Features are those before the projector. Survivors stay in raster order.

Ours: one product of all features with all features instead of one for each step. The authors' order of the list
decides every later split, so that a difference in rounding changes the diverse half (the attended half it does not):
of 576 random tokens, float32 and float64 agree on 70 to 84 % of it.

Departures
* A ViT without CLS (Qwen's): the mean attention that a patch receives from all patches of its image, as the authors
  advise (their issue 1). Where several patches make one token, their attention is averaged and the features are the
  tokens themselves, after the merger. Their code has neither.
* An odd list is split with the longer half first, and no more than that half goes at once: their code stops with an
  error there, and when fewer than 8 diverse tokens are asked for.
* Features and attention are float32 (theirs: the model's dtype); ties go to the lower place in the list (theirs: none).
* Images of different sizes share the budget in proportion (theirs: all crops have the same size and the same budget;
  `tokens`, in native runs, is the mean of an image).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from methods.base import INTERFACE, Budget, Least, Plan, Pruner, Range, Selection, Shape, Signal, Site, View
from methods.captured import Captured, Loop
from methods.ops import cosines, cosines_flops, share

STEP = 8  # tokens that go at once, fixed in the authors' code
FEATURES = Signal("features", tower="vit")


@dataclass(frozen=True)
class VisPruner(Pruner):
    """important_ratio: the attended share of what is kept. tokens: kept of each image in native runs."""

    name = "vispruner"
    title = "VisPruner"
    paper = "arXiv:2412.01818"
    licence = "Apache-2.0 (not used here: independent implementation)"
    hooks = (INTERFACE,)
    cost = "O(n^2 d), the rest in k / 8 steps"
    positions = "renumber"
    presets: ClassVar = {
        "t64": {"tokens": 64},
        "t32": {"tokens": 32},
        "mme": {"important_ratio": 0.75},
        "fastervlm": {"important_ratio": 1.0},
    }

    important_ratio: Annotated[float, Range(0, 1)] = 0.5
    tokens: Annotated[int, Least(1)] = 128

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind == "native":
            budget = Budget("layer_average", sum(min(self.tokens, n) for n in shape.images))
        return super().plan(budget, shape)

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        queries = "cls" if shape.vit_cls else "received"
        attention = Signal("rows", tower="vit", layer=shape.vit_layers - 1, queries=queries)
        return (attention,) if shape.unit_patches > 1 else (attention, FEATURES)

    def at_interface(self, view: View) -> Selection:
        shape = view.shape
        attention = view.signal(self.needs(shape)[0]).mean(dim=1)  # (n,)
        features = view.hidden if shape.unit_patches > 1 else view.signal(FEATURES).flatten(1)  # (n, d)
        images = zip(attention.split(shape.images), features.split(shape.images), strict=True)
        kept, start = [], 0
        for (scores, rows), k in zip(images, share(view.keep, shape.images), strict=True):
            kept.append(start + self._of_image(scores, rows, k))
            start += len(rows)
        return Selection(torch.cat(kept))

    @cached_property
    def _loop(self) -> Loop:
        return Captured(thinned)

    def selection_flops(self, site: Site, n: int, k: int, d: int, shape: Shape) -> int:
        flops = 0
        for tokens, kept in zip(shape.images, share(k, shape.images), strict=True):
            important = int(kept * self.important_ratio)
            if important < kept < tokens:
                flops += cosines_flops(tokens - important, d)
        return flops

    def _of_image(self, attention: Tensor, features: Tensor, k: int) -> Tensor:
        """The k tokens of one image that stay, (k,) ascending. attention: (n,), features: (n, d)."""
        order = torch.sort(attention, descending=True, stable=True).indices
        important = int(k * self.important_ratio)
        rest = order[important:]
        if important == k:
            rest = rest[:0]
        elif k < len(order):
            rest = rest[diverse(features[rest], k - important, self._loop)]
        return torch.cat([order[:important], rest]).sort().values


def diverse(features: Tensor, k: int, loop: Loop | None = None) -> Tensor:
    """Places of k rows that are left when the most similar go, step by step; in the order of the last list.

    features: (r, d), any float dtype, the most attended row first, compared by cosine in float32. 1 <= k < r.
    """
    return (loop or thinned)(cosines(features), k)


def thinned(cosine: Tensor, k: int) -> Tensor:
    """`diverse` of rows with these cosines, (r, r)."""
    alive = torch.arange(len(cosine), device=cosine.device)
    while len(alive) > k:  # each list needs the one before it; lengths are known, nothing is read back to the host
        even, odd = alive[::2], alive[1::2]
        closest = cosine.index_select(0, even).index_select(1, odd).amax(dim=1)
        gone = min(STEP, len(alive) - k)  # more than there are even ones: all of them
        alive = torch.cat([even[torch.sort(closest, descending=True, stable=True).indices[gone:]], odd])
    return alive
