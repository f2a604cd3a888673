"""SAINT: tokens that many others resemble go: in the ViT, between layers of the LLM, or in both.

Paper: Jeddi et al., "Similarity-Aware Token Pruning: Your VLM but Faster", 2025, arXiv:2503.11549. The authors' code
(ArmenJeddi/saint @ baaff95) has no licence; nothing here is taken from it. Written from a description of what it does,
and compared with its outputs in tests/golden.

The metric is the mean over heads of a layer's keys.
* graph="bipartite": tokens at even places are compared with those at odd ones by cosine. c = how many odd tokens are
  at least `tau` similar, w = their mean similarity. Redundancy is c x exp(gamma x (w - tau)), or the mean similarity
  to all odd tokens where c = 0. As many of the most redundant even tokens go as have c >= `neighbours`; odd tokens
  always stay. This is the paper's; the authors run it in ViTs that classify and in LLMs.
* graph="full": in rounds, those with the largest summed similarity to all that are left go: n // 16, then
  n // (what went before) and so on, until the count is met. This is the authors' for the ViT of a VLM.

stage="early": in the ViT, between attention and MLP: bipartite in each block of the first half, full once, in block 19
of 24. "late": bipartite behind LLM layers 7 to 16 of 32, on keys as attention sees them. "hybrid": early, then late.

Ours
* Exact budgets: counts instead of the threshold, ranked by the same redundancy. Each bipartite cut takes the same share
  of what is left. The hybrid keeps the authors' 65.1 % in the ViT: more where the budget is higher, fewer where the LLM
  would have to drop more than half of the layer average.
* granularity="unit": the metric is the mean key of the patches behind one LLM token, which stay or go together.
  "patch": single patches, as QuietPrune's authors describe SAINT on models that merge patches; survivors are packed in
  the order in which they stand.
* The full graph's sums are products with the sum of all directions: there is no matrix of all pairs.

Floors: a token of each image; late, 28.2 % of 576 tokens on 32 layers, where every cut takes its whole even half.

Departures
* order="official" is the authors' for classification: survivors of the even places, most redundant first, then the odd
  ones. The presets use order="raster", as all of their code for VLMs does.
* In the ViT each image is a graph of its own and, by the threshold, all lose the same number, the mean of theirs (as
  the authors' batches, which are of one size); an image keeps a unit at least. In the LLM all tokens are one graph.
  The authors' code for the LLM starts one place behind the first visual token and takes text in at the end.
* Keys of the ViT are those before rotation: the authors' towers have none.
* No round of the full graph drops less than one token (theirs: a division by zero below 16 tokens).
* Maths is float32; of equal redundancy the lower place goes first (theirs: either).
* Layers are mapped to the depth of the model at hand.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from methods.base import (
    IN_LLM,
    IN_VIT,
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
    map_depths,
)
from methods.ops import share, unit


@dataclass(frozen=True)
class Saint(Pruner):
    """stage: early is in the ViT, late in the LLM, hybrid in both; graph: of the ViT; granularity: of its rows.

    tau, neighbours, gamma: of the bipartite graph. order: of its survivors in the ViT. layer (of
    vit_depth), vit_keep, step: block of the full graph, share that it leaves in native runs, divisor of its first
    round. first, last (of depth): the LLM layers behind which tokens go.
    """

    name = "saint"
    title = "SAINT"
    paper = "arXiv:2503.11549"
    licence = "none given (not used here: independent implementation)"
    hooks = (IN_VIT, IN_LLM)
    cost = "bipartite: O(n^2 d_k) a cut; full graph: O(n d_k) a round"
    synchronises = "once a cut, where the threshold decides: how many tokens are left is known on the device alone"
    presets: ClassVar = {
        "early-unstructured": {"graph": "bipartite", "granularity": "patch", "tau": 0.75, "order": "raster"},
        "early-group": {"graph": "bipartite", "tau": 0.75, "order": "raster"},
        "late": {"stage": "late"},
        "hybrid": {"stage": "hybrid"},
    }

    stage: Literal["early", "late", "hybrid"] = "early"
    graph: Literal["bipartite", "full"] = "full"
    granularity: Literal["unit", "patch"] = "unit"
    tau: Annotated[float, Range(-1, 1)] = 0.83
    neighbours: Annotated[int, Least(1)] = 5
    gamma: float = 10.0
    order: Literal["official", "raster"] = "official"
    layer: Annotated[int, Least(0)] = 19
    vit_depth: int = 24
    vit_keep: Annotated[float, Range(0, 1, above=True)] = 0.651
    step: Annotated[int, Least(1)] = 16
    first: Annotated[int, Least(0)] = 7
    last: int = 16
    depth: int = 32

    def check_settings(self) -> None:
        if self.layer >= self.vit_depth:
            raise PruningError(f"layer must be in 0..{self.vit_depth - 1} (of vit_depth), got {self.layer}")
        if not self.first <= self.last < self.depth - 1:
            raise PruningError(f"first <= last must be in 0..{self.depth - 2}, got {self.first} and {self.last}")

    def vit_sites(self, shape: Shape) -> tuple[Site, ...]:
        """The cuts in the ViT, first to last."""
        if self.stage == "late":
            return ()
        full = self.graph == "full"
        layers = map_depths((self.layer,), self.vit_depth, shape.vit_layers) if full else range(shape.vit_layers // 2)
        return tuple(Site(IN_VIT, layer, after="attention") for layer in layers)

    def llm_sites(self, shape: Shape) -> tuple[Site, ...]:
        """The inputs of the layers behind `first` to `last`."""
        if self.stage == "early":
            return ()
        start, end = (map_depths((layer + 1,), self.depth, shape.llm_layers)[0] for layer in (self.first, self.last))
        return tuple(Site(IN_LLM, layer) for layer in range(start, end + 1))

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        vit, llm = self.vit_sites(shape), self.llm_sites(shape)
        if budget.kind == "native" and (llm or self.graph == "bipartite"):
            left = self._shipped(shape) if self.graph == "full" else None
            return Plan({**dict.fromkeys(vit, left), **dict.fromkeys(llm)})
        runs = _runs([site.layer for site in llm], shape.llm_layers)
        m, total = self._entering(budget, shape, runs)
        counts = [round(shape.n * (m / shape.n) ** (cut / len(vit))) for cut in range(1, len(vit) + 1)]
        in_llm = falling(m, total, runs)
        alive = zip((*vit, *llm), (shape.n, *counts, *in_llm), (*counts, *in_llm), strict=False)
        entering = (count for count, length in zip((m, *in_llm), runs, strict=True) for _ in range(length))
        return Plan({site: k for site, before, k in alive if k < before}, tuple(entering))

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        return tuple(_keys(site) for site in (*self.vit_sites(shape), *self.llm_sites(shape)))

    def in_vit(self, view: View) -> Selection:
        keys = view.signal(_keys(view.site)).float().flatten(1, 2).mean(dim=1)  # (n, head width)
        if view.keep is None:
            return Selection(self._one_count_for_all(keys, view))
        kept, start = [], 0
        for n, k in self._shares(view.n, view.keep, view.shape):
            rows = keys[start : start + n]
            stay = sparse(rows, k, self.step) if self.graph == "full" else self._thinned(rows, k)
            kept.append(stay + start)
            start += n
        return Selection(torch.cat(kept))

    def in_llm(self, view: View) -> Selection:
        graph = self._graph(view.signal(_keys(view.site)).float().mean(dim=1))
        gone = int(graph.crowded.sum()) if view.keep is None else view.n - view.keep
        return Selection(graph.without(gone).sort().values)

    def selection_flops(self, site: Site, n: int, k: int, d: int, shape: Shape) -> int:
        if site.hook == IN_LLM:
            return 2 * (n - n // 2) * (n // 2) * shape.llm_head_width
        products = 0
        for before, after in self._shares(n, k, shape):
            for gone in rounds(before, after, self.step) if self.graph == "full" else passes(before, after):
                products += before if self.graph == "full" else (before - before // 2) * (before // 2)
                before -= gone
        return 2 * products * shape.vit_head_width

    def alive_after(self, site: Site, plan: Plan, shape: Shape) -> tuple[tuple[int, int], ...] | None:
        if site.hook == IN_LLM:
            return None
        return tuple((units, 0) for units in share(plan.keeps[site], shape.images, least=1))

    def _shares(self, n: int, k: int, shape: Shape) -> list[tuple[int, int]]:
        """Rows of each image before and after a cut in the ViT from n to k."""
        each = self._rows_of_unit(shape)
        before, after = (share(rows // each, shape.images, least=1) for rows in (n, k))
        return [(each * one, each * other) for one, other in zip(before, after, strict=True)]

    def _rows_of_unit(self, shape: Shape) -> int:
        return shape.unit_patches if self.granularity == "patch" else 1

    def _shipped(self, shape: Shape) -> int:
        """Tokens that the full graph leaves in native runs."""
        return max(len(shape.images), round(self.vit_keep * shape.n))

    def _entering(self, budget: Budget, shape: Shape, runs: tuple[int, ...]) -> tuple[int, int]:
        """Tokens that enter the LLM, and how many enter all of its layers together. Raises BudgetInfeasible."""
        if budget.kind == "native":
            return self._shipped(shape), self._shipped(shape) * shape.llm_layers
        asked, layers = budget.tokens, shape.llm_layers
        fewest = shape.n if self.stage == "late" else len(shape.images)
        floor = fewest if budget.kind == "interface_kept" else least(fewest, runs) / layers
        if asked < floor:
            raise BudgetInfeasible(
                f"{self.name} ({self.stage}) needs >= {floor:g} of {shape.n} tokens here, got {asked}; raise --budget",
                floor,
            )
        if budget.kind == "interface_kept":
            return asked, max(least(asked, runs), layers * asked // 2)
        if self.stage == "late":
            return shape.n, layers * asked
        if self.stage == "early":
            return asked, layers * asked
        widest = bisect_right(range(1, shape.n + 1), layers * asked, key=lambda m: least(m, runs))
        return max(asked, min(self._shipped(shape), max(2 * asked, fewest), widest)), layers * asked

    def _graph(self, keys: Tensor) -> Bipartite:
        return Bipartite.of(keys, self.tau, self.neighbours, self.gamma)

    def _thinned(self, keys: Tensor, k: int) -> Tensor:
        """Places of the k of n tokens that stay, in `order`; further passes where the even half is not enough."""
        alive = torch.arange(len(keys), device=keys.device)
        for gone in passes(len(keys), k):
            alive = alive[self._graph(keys[alive]).without(gone)]
        return alive if self.order == "official" else alive.sort().values

    def _one_count_for_all(self, keys: Tensor, view: View) -> Tensor:
        """What the threshold leaves: every image loses the mean of the images' counts."""
        sizes = [view.n] if view.images == 1 else torch.bincount(view.image, minlength=view.images).tolist()
        graphs = [self._graph(rows) for rows in keys.split(sizes)]
        mean = sum(int(graph.crowded.sum()) for graph in graphs) // len(graphs)
        each = self._rows_of_unit(view.shape)
        kept, start = [], 0
        for graph, n in zip(graphs, sizes, strict=True):
            gone = min(mean, (n + 1) // 2, n - each)
            stay = graph.without(gone - gone % each)
            kept.append(start + (stay if self.order == "official" else stay.sort().values))
            start += n
        return torch.cat(kept)


@dataclass(frozen=True)
class Bipartite:
    """ranked: the even places, most redundant first, (e,). crowded: those with enough neighbours, by place, (e,)."""

    n: int
    ranked: Tensor
    crowded: Tensor

    @classmethod
    def of(cls, keys: Tensor, tau: float, neighbours: int, gamma: float) -> Bipartite:
        """keys: (n, w), compared by cosine in float32. Of equal redundancy the lower place ranks first."""
        direction = unit(keys)
        similarity = direction[::2] @ direction[1::2].T  # (e, o)
        near = similarity >= tau
        count = near.sum(dim=1)
        mean = (similarity * near).sum(dim=1) / count.clamp_min(1)
        redundancy = torch.where(count > 0, count * torch.exp(gamma * (mean - tau)), similarity.mean(dim=1))
        order = torch.sort(redundancy, descending=True, stable=True).indices
        return cls(len(keys), 2 * order, count >= neighbours)

    def without(self, gone: int) -> Tensor:
        """Places that stay, (n - gone,): the even ones, most redundant first, then the odd ones. 0 moves nothing."""
        if not gone:
            return torch.arange(self.n, device=self.ranked.device)
        return torch.cat([self.ranked[gone:], torch.arange(1, self.n, 2, device=self.ranked.device)])


def _keys(site: Site) -> Signal:
    """Keys of the layer that has just run."""
    if site.hook == IN_VIT:
        return Signal("keys", tower="vit", layer=site.layer, rope=False)
    return Signal("keys", layer=site.layer - 1, at=site.layer)


def sparse(keys: Tensor, k: int, step: int) -> Tensor:
    """Places of the k of n tokens that the full graph's rounds leave, ascending. keys: (n, w)."""
    direction = unit(keys)
    alive = torch.arange(len(keys), device=keys.device)
    for gone in rounds(len(keys), k, step):
        summed = (direction @ direction.sum(dim=0)[:, None])[:, 0]  # (alive,) similarity to all that are left
        stay = torch.sort(summed, descending=True, stable=True).indices[gone:].sort().values
        alive, direction = alive[stay], direction[stay]
    return alive


def rounds(n: int, k: int, step: int) -> Iterator[int]:
    """How many tokens go in each round of the full graph until k of n are left."""
    while n > k:
        step = max(1, min(n - k, n // step))
        yield step
        n -= step


def passes(n: int, k: int) -> Iterator[int]:
    """How many tokens go in each pass over the bipartite graph, at most the even half; a single 0 where n is k."""
    while True:
        gone = min(n - k, (n + 1) // 2)
        yield gone
        n -= gone
        if n == k:
            return


def _runs(sites: list[int], layers: int) -> tuple[int, ...]:
    """How many layers run before the first site, and from each site on until the next."""
    return tuple(end - start for start, end in pairwise([0, *sites, layers]))


def least(n: int, runs: tuple[int, ...]) -> int:
    """Tokens that enter all layers together if every cut takes the even half."""
    total = 0
    for place, length in enumerate(runs):
        n = _halved(n) if place else n
        total += length * n
    return total


def _halved(n: int) -> int:
    return max(1, n // 2)


def falling(n: int, total: int, runs: tuple[int, ...]) -> tuple[int, ...]:
    """Tokens after each cut, the same share of what is left each time, so that `total` enter all layers together.

    No cut takes more than the even half; the last count takes what rounding left.
    """
    counts, left = [], total - n * runs[0]
    for place in range(1, len(runs)):
        rest = runs[place:]
        count = min(max(round(n * _ratio(left / n, rest)), _halved(n)), n)
        counts.append(count)
        left, n = left - count * rest[0], count
    return tuple(counts)


def _ratio(wanted: float, runs: tuple[int, ...]) -> float:
    """q in [0, 1] with q x runs[0] + q^2 x runs[1] + ... = wanted, or 1 where that is too much."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        spent = sum(length * middle**power for power, length in enumerate(runs, 1))
        low, high = (middle, high) if spent < wanted else (low, middle)
    return high
