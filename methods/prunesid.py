"""PruneSID: group the tokens by their principal components, thin every group, and keep a quota of each.

Paper: "Prune Redundancy, Preserve Essence: Vision Token Compression in VLMs via Synergistic Importance-Diversity",
ICLR 2026, arXiv:2603.09480. The authors' code (ZhengyaoFang/PruneSID @ 4ef17d9) has no licence file at its root;
nothing here is taken from it. Written from a description of what it does, and compared with its outputs in
tests/golden.

Each image alone, T of its tokens, G = T // 4 groups. A token belongs to the component (of a randomised PCA over tokens
of the logistic function of their features) that it loads on most. In a group tokens stand by their score; one that is
more alike than tau to a better one that stays goes behind those that stay. tau is the mean cosine of all pairs, times
T / 32. A group's quota is its part of all that stay, at least one token, at most 5 for each begun 64 of T; what quotas
leave goes to the groups where most stay. Group by group, best first.

* A patch is a token (LLaVA): features before the projector; the score is the attention of CLS in the layer that they
  come from, tokens without any never stay. CLS itself is a visual token, stands first and counts.
* Otherwise (Qwen): the tokens themselves, behind the merger; the score is the loading; at least 4 groups; the mean
  cosine counts the diagonal and, as released, the empty half of the matrix; tau is that times 18 T / n, at least once.

Ours: exact budgets below what the groups ask for. Fewer than 4 tokens of an image make one group; what is over is cut
off the end.

Departures
* Order is by group on all models (theirs for Qwen: in raster order where more than 150 stay); order="raster" sorts.
* The tiles of LLaVA-NeXT beside the base one are one image, with its newlines and without CLS (theirs: each tile
  alone, with CLS at the end; its kept features land on the places of others).
* Without CLS, where a patch is a token, the attention that a patch receives.
* Products and cosines are float32 (theirs: rows are scaled in the model's dtype). Ties go to the lower index.
* The native count of an image of at most 16 tokens behind the merger is all of them, as theirs.
* The paper's budget by image ("Dyn") is left out: it is not in the authors' code for LLaVA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Generator, Tensor

from methods.base import INTERFACE, Budget, Least, Plan, Pruner, Selection, Shape, Signal, Site, View
from methods.ops import cosines, cosines_flops, share

FEATURES = Signal("features", tower="vit")
POWER = 2  # iterations of the randomised PCA


@dataclass(frozen=True)
class PruneSID(Pruner):
    """tokens: of each image in native runs (of 576, behind a merger). order: "group" | "raster"."""

    name = "prunesid"
    title = "PruneSID"
    paper = "arXiv:2603.09480"
    licence = "none stated (not used here: independent implementation)"
    hooks = (INTERFACE,)
    cost = "O(n^2 d + n d k) for cosines and components"
    cls_row = True
    positions = "renumber"
    stochastic = True
    synchronises = "once an image: how large groups are decides their quotas; the decomposition checks its result"
    presets: ClassVar = {"t192": {"tokens": 192}, "t128": {"tokens": 128}, "raster": {"order": "raster"}}

    tokens: Annotated[int, Least(1)] = 64
    order: Literal["group", "raster"] = "group"

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind == "native":
            merged = shape.unit_patches > 1
            counts = [max(round(n * self.tokens / 576), 16) if merged else self.tokens for n in shape.images]
            budget = Budget("layer_average", sum(map(min, counts, shape.images)))
        return super().plan(budget, shape)

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        if shape.unit_patches > 1:
            return ()
        queries = "cls" if shape.vit_cls else "received"
        return Signal("rows", "vit", shape.vit_layers - 1, queries), FEATURES

    def at_interface(self, view: View) -> Selection:
        shape, draw = view.shape, view.generator()
        merged, cls = shape.unit_patches > 1, int(shape.shows_cls)
        rows = [cls + n for n in shape.images]
        features = view.hidden if merged else view.signal(FEATURES).flatten(1)  # (n, d)
        scores = features[:, 0] if merged else view.signal(self.needs(shape)[0])[:, 0]
        kept, start = [], 0
        for x, score, n, k in zip(features.split(rows), scores.split(rows), rows, share(view.keep, rows), strict=True):
            if k == n:
                mine = torch.arange(n, device=x.device)
            elif k <= cls:
                mine = torch.arange(k, device=x.device)  # CLS alone
            else:
                loading = loadings(x[cls:], groups(k, n - cls, x.shape[1], merged), draw)
                chosen = thinned(x[cls:], None if merged else score[cls:], loading, k, cls)
                mine = torch.cat([torch.arange(cls, device=x.device), cls + chosen])
            kept.append(start + (mine.sort().values if self.order == "raster" else mine))
            start += n
        return Selection(torch.cat(kept))

    def selection_flops(self, site: Site, n: int, k: int, d: int, shape: Shape) -> int:
        merged, cls, flops = shape.unit_patches > 1, int(shape.shows_cls), 0
        rows = [cls + count for count in shape.images]
        for count, kept in zip(rows, share(k, rows), strict=True):
            if cls < kept < count:
                patches = count - cls
                flops += cosines_flops(patches, d)
                flops += 2 * (2 + 2 * POWER) * d * patches * groups(kept, patches, d, merged)
        return flops


def groups(k: int, n: int, d: int, merged: bool) -> int:
    """Number of groups that n tokens of width d are divided into, k kept (CLS among them)."""
    return min(max(k // 4, 4 if merged else 1), n, d)


def loadings(tokens: Tensor, components: int, draw: Generator, power: int = POWER) -> Tensor:
    """|weight| of each token in each principal component, (n, components) float32. tokens: (n, d), any float dtype.

    The channels are the observations: every token is centred over them. Randomised range finder with power iterations
    (Halko, Martinsson, Tropp 2011, algorithms 4.4 and 5.1); `draw` is a CPU generator.
    """
    data = tokens.detach().float().sigmoid()
    data = (data - data.mean(dim=1, keepdim=True)).T  # (d, n)
    basis = torch.randn(data.shape[1], components, generator=draw).to(data.device)
    basis = torch.linalg.qr(data @ basis).Q  # (d, components)
    for _ in range(power):
        basis = torch.linalg.qr(data.T @ basis).Q
        basis = torch.linalg.qr(data @ basis).Q
    return torch.linalg.svd(basis.T @ data, full_matrices=False).Vh.T.abs()


def thinned(tokens: Tensor, score: Tensor | None, loading: Tensor, k: int, cls: int) -> Tensor:
    """Places of the k - cls tokens of one image that stay, group by group, best first.

    tokens: (n, d); score: (n,) attention, None behind a merger, where a token is scored by its largest loading;
    loading: (n, groups). Waits for the device once: everything behind the cosines runs on the host.
    """
    n, device = len(tokens), tokens.device
    strongest, group = loading.max(dim=1)
    mine = strongest if score is None else score
    seen = torch.cat([cosines(tokens), mine[None].float(), group[None].float()]).cpu()  # (n + 2, n)
    cosine, mine, group = seen[:n], seen[n], seen[n + 1].long()
    if score is None:
        tau = float(cosine.triu().sum() / n**2) * max(18 * k / n, 1)
    else:
        tau = float(cosine.triu(1).sum() / (n * (n - 1) / 2)) * k / 32 if n > 1 else 1.0
    order = torch.sort(mine, descending=True, stable=True).indices  # best first
    stays = _stays(cosine, group, order, tau)
    if score is not None:
        stays &= mine[order] > 0
    behind = torch.sort(2 * group[order] + ~stays, stable=True).indices
    queue = order[behind]  # group by group: those that stay, best first, then the rest
    size = torch.bincount(group, minlength=loading.shape[1])
    staying = torch.bincount(group[order][stays], minlength=loading.shape[1])
    quota = quotas(size, staying, k, cls)
    place = torch.arange(n) - (size.cumsum(0) - size)[group[queue]]
    return queue[place < quota[group[queue]]][: k - cls].to(device)


def _stays(cosine: Tensor, group: Tensor, order: Tensor, tau: float) -> Tensor:
    """Mark the tokens, best first, that no better one of their group that stays is more alike than tau.

    That rule has one solution, and a token's turn depends on better ones alone: applied to all at once, again and
    again, it is right for the first t tokens after t times, and mostly for all after a few.
    """
    alike = (cosine[order][:, order] > tau) & (group[order][:, None] == group[order]).tril(-1)
    stays = torch.ones(len(order), dtype=torch.bool)
    while True:
        now = ~(alike & stays).any(dim=1)
        if torch.equal(now, stays):
            return stays
        stays = now


def quotas(size: Tensor, staying: Tensor, k: int, cls: int) -> Tensor:
    """Tokens of each group, (groups,) int64, k - cls in all unless groups are more. size, staying: (groups,)."""
    low = size.clamp(max=1)
    high = torch.minimum(torch.minimum(size, staying), torch.tensor(5 * -(-k // 64)))
    while high.sum() < min(k, size.sum()):
        high = torch.minimum(high + 1, size)
    rest = max(0, k - int(low.sum()) - cls)
    share_of = (staying / staying.sum().clamp_min(1)).cumsum(0) * rest  # float32, and half to even, as theirs
    rounded = torch.cat([torch.zeros(1), share_of]).round().long()
    quota = torch.minimum(rounded.diff() + low, high)
    for group in torch.sort(staying, descending=True, stable=True).indices.tolist():
        missing = rest + int(low.sum()) - int(quota.sum())
        quota[group] += min(int(high[group] - quota[group]), missing)
    return quota
