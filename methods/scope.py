"""SCOPE: choose tokens that are like many tokens which none so far is like, and that CLS attends to.

Paper: "SCOPE: Saliency-Coverage Oriented Token Pruning for Efficient Multimodal LLMs", NeurIPS 2025,
arXiv:2510.24214. The authors' code (kinredon/SCOPE @ 6bf7306) has no licence file at its root; nothing here is taken
from it. Written from a description of what it does, and compared with its outputs in tests/golden.

Each image alone, one token after the other: the gain of a token is the sum, over all tokens of the image, of how much
its cosine to them exceeds that of the best one chosen so far (0 at the start: negative cosines never count); the token
with the highest gain x attention^alpha is chosen. Cosines are of the features before the projector, attention is that
of CLS in the layer that they come from. Survivors stay in raster order; the question is not looked at.

Departures
* A ViT without CLS: the mean attention that a patch receives from all patches of its image. Where several patches make
  one token, their attention is averaged and the features are the tokens themselves, after the merger. The authors' code
  has neither.
* A zero vector is like no token (theirs: NaN). Maths is float32 (theirs: the model's dtype).
* Images share the budget by size (theirs: a part of it that is equal for all images or tiles). The tiles of LLaVA-NeXT
  beside the base one are one image, with its newlines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from methods.base import (
    INTERFACE,
    Budget,
    Least,
    Plan,
    Pruner,
    Range,
    Selection,
    Shape,
    Signal,
    Site,
    View,
)
from methods.ops import cosines, cosines_flops, share

FEATURES = Signal("features", tower="vit")


@dataclass(frozen=True)
class Scope(Pruner):
    """alpha: power of the attention. combine: gain "multiply" or "add" attention (of all heads together). tokens: of
    each image in native runs."""

    name = "scope"
    title = "SCOPE"
    paper = "arXiv:2510.24214"
    licence = "none stated (not used here: independent implementation)"
    hooks = (INTERFACE,)
    cost = "O(n^2 d + k n^2), the second part in k steps"
    positions = "renumber"
    presets: ClassVar = {"t192": {"tokens": 192}, "t128": {"tokens": 128}, "add": {"combine": "add"}}

    alpha: Annotated[float, Range(0)] = 1.0
    combine: Literal["multiply", "add"] = "multiply"
    tokens: Annotated[int, Least(1)] = 64

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind == "native":
            budget = Budget("layer_average", sum(min(self.tokens, n) for n in shape.images))
        return super().plan(budget, shape)

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        queries = "cls" if shape.vit_cls else "received"
        attention = Signal("rows", "vit", shape.vit_layers - 1, queries, per_head=self.combine == "add")
        return (attention,) if shape.unit_patches > 1 else (attention, FEATURES)

    def at_interface(self, view: View) -> Selection:
        shape = view.shape
        attention = view.signal(self.needs(shape)[0]).mean(dim=-1)  # (n,), or (h, n)
        saliency = (attention.sum(dim=0) if self.combine == "add" else attention) ** self.alpha
        features = view.hidden if shape.unit_patches > 1 else view.signal(FEATURES).flatten(1)  # (n, d)
        images = zip(features.split(shape.images), saliency.split(shape.images), strict=True)
        kept, start = [], 0
        for (rows, mine), k in zip(images, share(view.keep, shape.images), strict=True):
            kept.append(start + covering(rows, mine, k, self.combine).sort().values)
            start += len(rows)
        return Selection(torch.cat(kept))

    def selection_flops(self, site: Site, n: int, k: int, d: int, shape: Shape) -> int:
        images = zip(shape.images, share(k, shape.images), strict=True)
        return sum(cosines_flops(tokens, d) for tokens, kept in images if kept)


def covering(features: Tensor, saliency: Tensor, k: int, combine: Literal["multiply", "add"] = "multiply") -> Tensor:
    """(k,) indices in the order of choice. features: (n, d), any float dtype; saliency: (n,), >= 0; k <= n."""
    chosen = torch.zeros(k, dtype=torch.int64, device=features.device)
    if not k:
        return chosen
    likeness = cosines(features)  # (n, n)
    uncovered = likeness.clamp(min=0)  # of each token (column), what a candidate (row) would add
    for step in range(k):  # each choice needs the one before it; nothing is read back to the host
        gain = uncovered.sum(dim=1)
        score = gain * saliency if combine == "multiply" else gain + saliency
        if step:
            score.index_fill_(0, chosen[:step], -torch.inf)
        best = torch.argmax(score, dim=0, keepdim=True, out=chosen[step : step + 1])
        uncovered.sub_(uncovered.index_select(0, best)).clamp_(min=0)  # max(0, s_ij - c_j) again, c_j risen to s_bj
    return chosen
