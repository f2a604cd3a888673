"""HoloV: every stretch of the image has tokens in proportion to its attention, and keeps those attended to most.

Paper: Zou et al., "Don't Just Chase 'Highlighted Tokens' in MLLMs: Revisiting Visual Holistic Context Retention",
NeurIPS 2025, arXiv:2510.02912. The authors' code (obananas/HoloV @ 1d2e65e) is Apache-2.0; nothing here is taken from
it. Written from a description of what it does, and compared with its outputs in tests/golden.

Each image alone, k of its tokens: its raster list is cut into `crops` runs of consecutive tokens. The quota of a run is
k x its mean attention over the sum of all runs' means, cut off; what that leaves goes to the runs with the largest
means, one each. In a run the tokens with the most attention stay. Attention is that of CLS in the layer whose output
the projector takes, mean over heads; the question is not looked at.

The paper weighs attention with the variance of a token's cosines inside its crop. As released that term is a constant
factor (1.09) on every run of two tokens or more, whatever the picture, so that it decides nothing; here it is that
factor. A run of one token counts a thousandth, as theirs.

Ours: what a run cannot take goes to the runs with room, one token each and the largest mean first, in rounds. The
release loses it and appends zero vectors instead (overflow="zero"), which the LLM sees and the budget counts.

Departures
* A ViT without CLS: the mean attention that a patch receives, in raster order. (Theirs for Qwen2.5-VL leaves it in the
  order of the windows, so that it belongs to other tokens, and takes the start marker for an image token.)
* Survivors stand in raster order; the preset "released" has theirs, run by run and most attended first.
* Runs are of the raster list, as released, where the paper draws squares. Of LLaVA-NeXT's tiles beside the base one
  the list is their rows, newlines included (theirs: base tile and all others in one list, without newlines).
* Several images share the budget by size (theirs: each the same, or one picture alone).
* Attention is float32 (theirs: the mean over heads in the model's dtype); ties go to the lower index (theirs: none).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from methods.base import INTERFACE, Budget, Least, Plan, Pruner, Range, Selection, Shape, Signal, View
from methods.ops import share


@dataclass(frozen=True)
class HoloV(Pruner):
    """crops: runs of an image, or "share": 1024 / 576 times n / k. overflow: "redistribute" | "zero". order: "raster" |
    "attention". In native runs `tokens` of each image, or, where `ratio` > 0, that share of it."""

    name = "holov"
    title = "HoloV"
    paper = "arXiv:2510.02912"
    licence = "Apache-2.0 (not used here: independent implementation)"
    hooks = (INTERFACE,)
    cost = "one attention row: O(n d), O(n^2 d) without CLS; a sort"
    positions = "renumber"
    presets: ClassVar = {
        "released": {"overflow": "zero", "order": "attention"},
        "t192": {"tokens": 192},
        "t128": {"tokens": 128},
        "qwen-25": {"crops": "share", "ratio": 0.25},
        "qwen-11": {"crops": "share", "ratio": 0.111},
    }

    crops: Annotated[int, Least(1)] | Literal["share"] = 16
    overflow: Literal["redistribute", "zero"] = "redistribute"
    order: Literal["raster", "attention"] = "raster"
    tokens: Annotated[int, Least(1)] = 64
    ratio: Annotated[float, Range(0, 1)] = 0.0

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind == "native":
            kept = sum(int(n * self.ratio) if self.ratio else min(self.tokens, n) for n in shape.images)
            budget = Budget("layer_average", max(1, kept))
        return super().plan(budget, shape)

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        queries = "cls" if shape.vit_cls else "received"
        return (Signal("rows", tower="vit", layer=shape.vit_layers - 1, queries=queries),)

    def at_interface(self, view: View) -> Selection:
        (wanted,), images = self.needs(view.shape), view.shape.images
        kept, real, start = [], [], 0
        for score, k in zip(view.signal(wanted).mean(dim=1).split(images), share(view.keep, images), strict=True):
            rows, mine = self.of_image(score, k)
            kept.append(start + rows)
            real.append(mine)
            start += len(score)
        keep = torch.cat(kept)
        if self.overflow == "redistribute":
            return Selection(keep)
        return Selection(keep, weight=torch.ones(view.n, device=keep.device).index_copy(0, keep, torch.cat(real)))

    def runs(self, n: int, k: int) -> int:
        """Number of runs that an image of n tokens is cut into, k of them kept."""
        crops = max(1, int(1024 / 576 * n / k)) if self.crops == "share" else self.crops
        return min(crops, n)

    def of_image(self, attention: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """k rows of one image in output order, (k,), and 1 for each of them that is no zero vector, (k,) float32.

        attention: (n,). Each token has a place in a list of all: within a quota, then one round behind the other.
        """
        n, device = len(attention), attention.device
        if not k:
            return torch.zeros(0, dtype=torch.int64, device=device), torch.zeros(0, device=device)
        crops = self.runs(n, k)
        small, longer = divmod(n, crops)
        lengths = [small + 1] * longer + [small] * (crops - longer)
        run = torch.cat([torch.full((length,), i, device=device) for i, length in enumerate(lengths)])  # (n,)
        parts = attention.split(lengths)
        mean = torch.stack([part.mean() * (1090 if len(part) > 1 else 1) for part in parts])  # (crops,)
        standing = torch.argsort(torch.sort(mean, descending=True, stable=True).indices)  # 0: largest mean
        exact = mean / (mean.sum() + 1e-6) * k
        quota = exact.floor().long()
        quota = quota + (standing < k - quota.sum())
        rank = torch.cat([torch.argsort(torch.sort(part, descending=True, stable=True).indices) for part in parts])
        beyond = rank - quota[run]  # < 0: within the quota
        place = torch.where(beyond < 0, 0, 1 + beyond * crops + standing[run])
        kept = torch.sort(place, stable=True).indices[:k]
        real = place[kept] <= 0 if self.overflow == "zero" else torch.ones_like(kept, dtype=torch.bool)
        if self.order == "raster":
            order = torch.sort(kept).indices
        else:  # zero vectors last; a run that stays whole is in raster order
            taken = torch.zeros_like(quota).index_add(0, run[kept], real.long())
            whole = torch.cat([taken[i : i + 1] == length for i, length in enumerate(lengths)])[run]
            inside = torch.where(whole, torch.arange(n, device=device), rank)[kept]
            order = torch.sort(run[kept] * n + inside + ~real * crops * n, stable=True).indices
        return kept[order], real[order].float()
