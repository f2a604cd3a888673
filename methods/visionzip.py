"""VisionZip: keep the tokens that the ViT looks at, and merge the others into a few by the likeness of their keys.

Paper: Yang et al., "VisionZip: Longer is Better but Not Necessary in Vision Language Models", CVPR 2025,
arXiv:2412.04467. The authors' code (dvlab-research/VisionZip @ 3151f6d, for Qwen2.5-VL @ 769aa61) is Apache-2.0;
nothing here is taken from it. Written from a description of what it does, and compared with its outputs in
tests/golden.

Each image alone, by the last ViT block before the projector. Dominant tokens are those with the most attention from
CLS, or received from all patches where there is no CLS. Of the rest, in raster order, every step-th is a target, and
each other one joins the target whose key (mean over heads) is closest by cosine. A contextual token is its target plus
the mean of those that joined it: twice as long as others, which is part of what was published.

* A patch is a token and there is a CLS (LLaVA): in the ViT, in front of the projector; CLS is one of the dominant
  tokens and stands first, contextual tokens last. In native runs `dominant` and `contextual` tokens of each tile.
* Otherwise (Qwen): between projector and LLM, on attention and keys averaged over the patches of a token; a contextual
  token stands where its target stood. In native runs shares of the image.

Ours: exact budgets. The tokens of an image are divided like `dominant` and `contextual`, or like their ratios.
include_target_in_mean=True makes a contextual token the plain mean that descriptions of the method speak of.

Floor: a token of the prompt; with CLS, that and another one of each image.

Departures
* Attention is float32 (theirs: the model's dtype). Ties go to the lower index (theirs: either).
* Of several images or tiles each has its own contextual tokens behind it (theirs, LLaVA-NeXT: all at the end of the
  prompt); a budget is shared in proportion to size. Their code for Qwen takes one image.
* DeepStack's features are merged by the same sums (theirs knows none).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from methods.base import (
    IN_VIT,
    INTERFACE,
    Budget,
    BudgetInfeasible,
    Least,
    Plan,
    Pruner,
    PruningError,
    Range,
    Selection,
    Shape,
    Signal,
    Site,
    View,
)
from methods.ops import share, unit


@dataclass(frozen=True)
class VisionZip(Pruner):
    """dominant, contextual: tokens of each tile in native runs in front of the projector; dominant_ratio,
    contextual_ratio: shares of each image behind it. include_target_in_mean: a contextual token is a plain mean.
    """

    name = "visionzip"
    title = "VisionZip"
    paper = "arXiv:2412.04467"
    licence = "Apache-2.0 (not used here: independent implementation)"
    hooks = (IN_VIT, INTERFACE)
    cost = "O(n c d_k) for c contextual tokens"
    cost = "attention rows: O(n^2 d), O(n d) with CLS; O(n C d_k) to join C contextual tokens"
    cls_row = True
    positions = "renumber"
    presets: ClassVar = {
        "192": {"dominant": 162, "contextual": 30},
        "128": {"dominant": 108, "contextual": 20},
        "qwen-50": {"dominant_ratio": 0.45},
    }

    dominant: Annotated[int, Least(1)] = 54
    contextual: Annotated[int, Least(1)] = 10
    dominant_ratio: Annotated[float, Range(0, above=True)] = 0.65
    contextual_ratio: Annotated[float, Range(0, above=True)] = 0.05
    include_target_in_mean: bool = False

    def check_settings(self) -> None:
        ratios = self.dominant_ratio, self.contextual_ratio
        if sum(ratios) > 1:
            raise PruningError(f"dominant_ratio and contextual_ratio must sum to <= 1, got {ratios}")

    def site(self, shape: Shape) -> Site:
        return Site(INTERFACE)

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        cls = len(shape.images) if shape.shows_cls else 0
        if budget.kind == "native":
            budget = Budget("layer_average", cls + sum(map(sum, self._native(shape))))
        plan = super().plan(budget, shape)
        if not cls:
            return plan
        if budget.tokens < 2 * cls:
            raise BudgetInfeasible(
                f"visionzip needs >= 2 tokens of each of {cls} images, CLS is one; got {budget.tokens}; raise --budget",
                2 * cls,
            )
        return Plan({Site(IN_VIT, shape.vit_layers - 1): budget.tokens - cls, **plan.keeps}, plan.entering)

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        layer = shape.vit_layers - 1
        attention = Signal("rows", tower="vit", layer=layer, queries="cls" if shape.vit_cls else "received")
        return attention, Signal("keys", tower="vit", layer=layer)

    def in_vit(self, view: View) -> Selection:
        return self._zipped(view)

    def at_interface(self, view: View) -> Selection:
        if view.shape.shows_cls:  # CLS has joined what the ViT left
            return Selection(torch.arange(view.n, device=view.hidden.device))
        return self._zipped(view)

    def selection_flops(self, site: Site, n: int, k: int, d: int, shape: Shape) -> int:
        if shape.shows_cls and site.hook == INTERFACE:
            return 0
        counts = zip(shape.images, self._counts(k, shape), strict=True)
        return 2 * shape.vit_head_width * sum((rows - stay) * merged for rows, (stay, merged) in counts)

    def alive_after(self, site: Site, plan: Plan, shape: Shape) -> tuple[tuple[int, int], ...] | None:
        if site.hook == INTERFACE:
            return None
        return tuple((sum(counts), 0) for counts in self._counts(plan.keeps[site], shape))

    def _native(self, shape: Shape) -> list[tuple[int, int]]:
        """Dominant and contextual tokens of each image, CLS aside, as the authors count them."""
        if shape.shows_cls:
            both = self.dominant - 1, self.contextual
            return [both if sum(both) < n else (n - 1, 0) for n in shape.images]
        return [(int(self.dominant_ratio * n), max(1, int(self.contextual_ratio * n))) for n in shape.images]

    def _counts(self, k: int, shape: Shape) -> list[tuple[int, int]]:
        """Dominant and contextual tokens of each image, CLS aside, k of all images together."""
        native, cls = self._native(shape), int(shape.shows_cls)
        if sum(map(sum, native)) == k:
            return native
        pair = (self.dominant, self.contextual) if cls else (self.dominant_ratio, self.contextual_ratio)
        merged = pair[1] / sum(pair)
        shares = share(k, shape.images, least=cls)
        contextual = [max(1, round((mine + cls) * merged)) if mine > 1 else 0 for mine in shares]
        return [(mine - theirs, theirs) for mine, theirs in zip(shares, contextual, strict=True)]

    def _zipped(self, view: View) -> Selection:
        attention, keys = (view.signal(signal).float() for signal in self.needs(view.shape))  # (n, g), (n, g, h, w)
        score, keys, sizes = attention.mean(dim=1), keys.flatten(1, 2).mean(dim=1), view.shape.images  # (n,), (n, w)
        images = zip(score.split(sizes), keys.split(sizes), self._counts(view.keep, view.shape), strict=True)
        keep, assign, weight, start, slots = [], [], [], 0, 0
        for mine, metric, (dominant, contextual) in images:
            one = zipped(mine, metric, dominant, contextual, self.include_target_in_mean)
            keep.append(one.keep + start)
            assign.append(torch.where(one.assign < 0, -1, one.assign + slots))
            weight.append(one.weight)
            start, slots = start + len(mine), slots + dominant + contextual
        selection = Selection(torch.cat(keep), torch.cat(assign), torch.cat(weight))
        return in_raster_order(selection) if view.site.hook == INTERFACE else selection


def zipped(
    score: Tensor, keys: Tensor, dominant: int, contextual: int, include_target_in_mean: bool = False
) -> Selection:
    """The `dominant` highest scores of one image, ascending, and behind them `contextual` merged ones.

    score: (n,), higher is kept; keys: (n, w), compared by cosine in float32; dominant + contextual <= n.
    """
    device = score.device
    order = torch.sort(score, descending=True, stable=True).indices
    stay, rest = order[:dominant].sort().values, order[dominant:].sort().values
    assign = torch.full_like(order, -1).index_copy(0, stay, torch.arange(dominant, device=device))
    weight = torch.ones(len(order), device=device)
    if not contextual:
        return Selection(stay, assign, weight)
    step = max(1, len(rest) // contextual)
    targets, direction = rest[::step][:contextual], unit(keys[rest])
    slot = (direction @ direction[::step][:contextual].T).argmax(dim=1)  # (rest,)
    slot[::step][:contextual] = torch.arange(contextual, device=device)
    members = weight.new_zeros(contextual).index_add_(0, slot, torch.ones_like(slot, dtype=weight.dtype))
    sharing = members if include_target_in_mean else (members - 1).clamp_min(1)
    weight[rest] = 1 / sharing[slot]
    if not include_target_in_mean:
        weight[targets] = 1.0
    return Selection(torch.cat([stay, targets]), assign.index_copy(0, rest, dominant + slot), weight)


def in_raster_order(selection: Selection) -> Selection:
    """The same slots in the order of their representatives."""
    order = torch.sort(selection.keep).indices
    assign = torch.where(selection.assign < 0, -1, torch.argsort(order)[selection.assign])
    return Selection(selection.keep[order], assign, selection.weight)
