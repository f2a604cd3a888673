"""FasterVLM: keep the tokens that the ViT's CLS token attends to most.

Paper: Zhang et al., "[CLS] Attention is All You Need for Training-Free Visual Token Pruning: Make VLM Inference
Faster", arXiv:2412.01818v1 (version 2 of that paper is another method, VisPruner). The authors' code
(Theia-4869/FasterVLM @ f5d5f12) is Apache-2.0; nothing here is taken from it. Written from a description of what it
does, and compared with its outputs in tests/golden.

Each image alone: score = attention of CLS in the layer whose output the projector takes, mean over heads; the k
highest stay, in raster order. Nothing is merged, and the question is not looked at. VisPruner with important_ratio 1
keeps the same.

Departures
* A ViT without CLS (Qwen's): the mean attention that a patch receives from all patches of its image. Where several
  patches make one token, their attention is averaged. The authors' code has neither.
* Scores are float32 (theirs: the mean over heads in the model's dtype); ties go to the lower index (theirs: none).
* A budget is shared by the images' sizes. Theirs gives every tile of LLaVA-NeXT the same k: here a native run keeps
  the same number in all, but the tiles beside the base one share theirs in one ranking, since a view does not say which
  tile a row is of. Newlines come last (theirs: dropped, and the padding of tiles is kept).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from methods.base import INTERFACE, Budget, Least, Plan, Pruner, Selection, Shape, Signal, View
from methods.ops import share, top_k


@dataclass(frozen=True)
class FasterVLM(Pruner):
    """tokens: kept of each image, or of each tile of one, in native runs."""

    name = "fastervlm"
    title = "FasterVLM"
    paper = "arXiv:2412.01818v1"
    licence = "Apache-2.0 (not used here: independent implementation)"
    hooks = (INTERFACE,)
    cost = "one attention row: O(n d); O(n^2 d) without CLS"
    positions = "renumber"
    presets: ClassVar = {"t288": {"tokens": 288}, "t58": {"tokens": 58}, "t29": {"tokens": 29}}

    tokens: Annotated[int, Least(1)] = 144

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind == "native":
            tiles = [max(1, sum(tile[0] == i for tile in shape.tiles)) for i in range(len(shape.images))]
            kept = sum(min(self.tokens * count, n) for count, n in zip(tiles, shape.images, strict=True))
            budget = Budget("layer_average", kept)
        return super().plan(budget, shape)

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        queries = "cls" if shape.vit_cls else "received"
        return (Signal("rows", tower="vit", layer=shape.vit_layers - 1, queries=queries),)

    def at_interface(self, view: View) -> Selection:
        (wanted,), images = self.needs(view.shape), view.shape.images
        kept, start = [], 0
        for score, k in zip(view.signal(wanted).mean(dim=1).split(images), share(view.keep, images), strict=True):
            kept.append(start + top_k(score, k))
            start += len(score)
        return Selection(torch.cat(kept))
