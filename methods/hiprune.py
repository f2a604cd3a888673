"""HiPrune: keep what a middle ViT block looks at, with its four neighbours, and fill up with what the last one does.

Paper: "HiPrune: Training-Free Visual Token Pruning via Hierarchical Attention in Vision-Language Models",
arXiv:2508.00553. The authors' code (Danielement321/HiPrune @ 6e83a12) is MIT; nothing here is taken from it. Written
from a description of what it does, and compared with its outputs in tests/golden.

Each image alone, k of its n tokens. Score of a block: attention received from all its queries (CLS's among them), mean
over heads. Anchors: the round(alpha k / 5) highest of the middle block. Buffers: the four neighbours of an anchor.
Registers: the highest of the last block that the projector takes, of the others, until there are k. In raster order;
the question is not looked at.

Left and right are places in the raster, so that a token at the border has its neighbour in the next row; what falls off
the image becomes its first or last token. Both are the release's; the paper drops what falls off.

Ours: where anchors and buffers alone are more than k (alpha near 1), anchors go before buffers, and the more attended
in the last block before the less. Their code ends in an error there.

Departures
* Buffers and anchors are never registers. In the authors' code for Qwen2.5-VL they can be (it lowers a score by 1
  where scores exceed 2), so that fewer tokens are left than were asked for.
* Several images: each has its share of the budget by size, and its own width (theirs for LLaVA: an equal part each; for
  Qwen: one pool with the first image's width). The tiles of LLaVA-NeXT beside the base one are one image, with its
  newlines (theirs: each tile alone, without).
* Attention and sums are float32 (theirs: the model's dtype); ties go to the lower index (theirs: none).
* The middle block is mapped to the depth of the model at hand. Where it attends within windows, what it receives comes
  from there (theirs: a block that sees the whole image).
* HiPrune++, tokens chosen by the question on top, is left out: its text leaves the budget open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from methods.base import INTERFACE, Budget, Least, Plan, Pruner, PruningError, Range, Selection, Shape, Signal, View
from methods.ops import share, top_k


@dataclass(frozen=True)
class HiPrune(Pruner):
    """block (1-based, of `depth`): the middle one. alpha: share of anchors and buffers. In native runs `tokens` in all,
    split evenly over images and tiles, or, where `ratio` > 0, that share of the visual tokens."""

    name = "hiprune"
    title = "HiPrune"
    paper = "arXiv:2508.00553"
    licence = "MIT (not used here: independent implementation)"
    hooks = (INTERFACE,)
    cost = "received attention of two blocks: O(n^2 d)"
    positions = "renumber"
    presets: ClassVar = {
        "128": {"tokens": 128},
        "64": {"tokens": 64},
        "next-640": {"tokens": 640},
        "next-320": {"tokens": 320},
        "next-160": {"tokens": 160},
        "qwen-33": {"block": 16, "depth": 32, "ratio": 0.334},
        "qwen-22": {"block": 16, "depth": 32, "ratio": 0.223},
        "qwen-11": {"block": 16, "depth": 32, "ratio": 0.112},
    }

    block: Annotated[int, Least(1)] = 9
    depth: int = 24
    alpha: Annotated[float, Range(0, 1)] = 0.1
    tokens: Annotated[int, Least(1)] = 192
    ratio: Annotated[float, Range(0, 1)] = 0.0

    def check_settings(self) -> None:
        if self.block > self.depth:
            raise PruningError(f"block must be in 1..{self.depth} (of depth {self.depth}), got {self.block}")

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind == "native":
            parts = len(shape.tiles or shape.images)
            kept = round(shape.n * self.ratio) if self.ratio else parts * (self.tokens // parts)
            budget = Budget("layer_average", min(max(1, kept), shape.n))
        return super().plan(budget, shape)

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        queries = ("received", "cls") if shape.vit_cls else ("received",)
        blocks = dict.fromkeys((self._middle(shape), shape.vit_layers - 1))
        return tuple(Signal("rows", "vit", block, which) for block in blocks for which in queries)

    def at_interface(self, view: View) -> Selection:
        shape, images = view.shape, view.shape.images
        middle, last = (received(view, block) for block in (self._middle(shape), shape.vit_layers - 1))
        parts = zip(middle.split(images), last.split(images), shape.grids, share(view.keep, images), strict=True)
        kept, start = [], 0
        for objects, deep, (_, columns), k in parts:
            kept.append(start + anchored(objects, deep, columns, round(k * self.alpha / 5), k))
            start += len(objects)
        return Selection(torch.cat(kept))

    def _middle(self, shape: Shape) -> int:
        return max(1, round(self.block / self.depth * shape.vit_layers)) - 1


def received(view: View, block: int) -> Tensor:
    """Mean attention that each token gets from all queries of a ViT block, CLS's included, (n,) float32."""
    shape = view.shape
    visual = view.signal(Signal("rows", "vit", block, "received"))  # (n, g)
    if shape.vit_cls:
        images = zip(
            visual.split(shape.images),
            view.signal(Signal("rows", "vit", block, "cls")).split(shape.images),
            [shape.tiles[0][1] if shape.tiles else n * shape.unit_patches for n in shape.images],  # patches that attend
            strict=True,
        )
        visual = torch.cat([(patches * mean + cls) / (1 + patches) for mean, cls, patches in images])
    return visual.mean(dim=1)


def around(anchors: Tensor, columns: int, n: int) -> Tensor:
    """Places of anchors and of their four neighbours in the raster of an image of n tokens, (5 a,), repeats and all."""
    steps = (0, -1, 1, -columns, columns)
    return torch.cat([anchors + step for step in steps]).clamp(0, n - 1)


def anchored(objects: Tensor, deep: Tensor, columns: int, anchors: int, k: int) -> Tensor:
    """The k tokens of one image that stay, ascending. objects, deep: (n,) scores of the two blocks."""
    middle = top_k(objects, anchors)
    tier = torch.zeros_like(deep, dtype=torch.int64)  # 2 anchors, 1 buffers, 0 the others
    tier = tier.index_fill(0, around(middle, columns, len(deep)), 1).index_fill(0, middle, 2)
    order = torch.sort(deep, descending=True, stable=True).indices
    order = order[torch.sort(tier[order], descending=True, stable=True).indices]
    return order[:k].sort().values
