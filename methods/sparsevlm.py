"""SparseVLM: words that speak of the image rate its tokens, in three stages; v1.5 recycles what is dropped.

Paper: Zhang et al., "SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model Inference", ICML 2025,
arXiv:2410.04417. The authors' code (Gumpest/SparseVLMs @ 26a5f48) is Apache-2.0; nothing here is taken from it.
Written from a description of what it does, and compared with its outputs in tests/golden.

Raters are chosen once, from the LLM's input embeddings: text tokens whose mean share of the visual tokens' softmax over
the text is above average. After layers 2, 6 and 15, score = attention that the raters give to a visual token in the
layer that has just run, mean over raters and heads. The highest stay; how many is a list of the authors.
* v1.5: of the dropped, the best 30 % are clustered (density peaks, one cluster for ten) and the clusters' means are
  appended behind the kept tokens; positions are numbered anew.
* v2.0 ("SparseVLM+"): attention is divided by what queries and keys of ones would score at the same positions, only
  the 14 heads that look most at the image count, nothing is recycled, positions stay.

Ours: exact budgets. The authors average the tokens *behind* each layer (192 means 206 entering). A budget here counts
those entering, recycled ones included: counts after each stage are read off a line through the authors' four lists (as
shares of 576 tokens), from the least possible to all; the last count takes up what rounding left.

Departures
* Text: all tokens behind the first visual one. Where no token is above average (a single one), all rate.
* The score is float32 (theirs: softmax in float16); ties go to the lower index.
* The tie-breaking noise on densities (up to 1e-6) is drawn from the run's seed.
* Where a model has fewer than 14 heads, all count. The rank-adaptive counts of the paper are in no released version.
* Positions are renumbered where the model counts in one dimension; ids of rows and columns (M-RoPE) are kept.
* Several images: one ranking over all. Layers are the authors' of 32, mapped to the model at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from methods.base import (
    IN_LLM,
    Budget,
    BudgetInfeasible,
    Least,
    Plan,
    Pruner,
    PruningError,
    Selection,
    Shape,
    Signal,
    Site,
    View,
    map_depths,
    one_site_plan,
)
from methods.ops import top_k

LISTS = {  # tokens kept after each stage, of 576
    "1.5": {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)},
    "2.0": {192: (300, 200, 118), 128: (238, 108, 60), 96: (246, 54, 28), 64: (66, 34, 20)},
}
AFFINITY = Signal("affinity")


@dataclass(frozen=True)
class SparseVLM(Pruner):
    """version: of the authors' code. retain: their list for native runs. layers (of `depth`) behind which tokens go.

    heads: heads that count in v2.0.
    """

    name = "sparsevlm"
    title = "SparseVLM"
    paper = "arXiv:2410.04417"
    licence = "Apache-2.0 (not used here: independent implementation)"
    hooks = (IN_LLM,)
    cost = "a row of each chosen text token a stage: O(t T d); O(p^2 d) to merge p pruned tokens"
    positions = "renumber"
    stochastic = True
    presets: ClassVar = {
        "128": {"retain": 128},
        "96": {"retain": 96},
        "64": {"retain": 64},
        "v2": {"version": "2.0"},
        "v2-128": {"version": "2.0", "retain": 128},
        "v2-96": {"version": "2.0", "retain": 96},
        "v2-64": {"version": "2.0", "retain": 64},
    }

    version: Literal["1.5", "2.0"] = "1.5"
    retain: Literal[192, 128, 96, 64] = 192
    layers: Annotated[tuple[int, int, int], Least(0)] = (2, 6, 15)
    depth: int = 32
    heads: Annotated[int, Least(1)] = 14

    def check_settings(self) -> None:
        if max(self.layers) >= self.depth - 1 or list(self.layers) != sorted(set(self.layers)):
            raise PruningError(f"layers must be three that ascend in 0..{self.depth - 2}, got {self.layers}")

    def sites(self, shape: Shape) -> tuple[Site, ...]:
        inputs = tuple(layer + 1 for layer in self.layers)
        return tuple(Site(IN_LLM, layer) for layer in map_depths(inputs, self.depth, shape.llm_layers))

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        sites, n, layers = self.sites(shape), shape.n, shape.llm_layers
        starts = [site.layer for site in sites]
        run = [end - start for start, end in zip(starts, [*starts[1:], layers], strict=True)]
        if budget.kind == "native":
            counts = self._native_counts(n)
        else:
            if budget.kind == "interface_kept" or self.version == "2.0":  # v1.5 has a floor of its own
                one_site_plan(self.name, sites[0], budget, shape)  # refuses what no schedule can reach
            counts = self._exact_counts(n, layers * budget.tokens - starts[0] * n, run, layers)
        keeps = {site: k for site, k, alive in zip(sites, counts, (n, *counts), strict=False) if k < alive}
        entering = (n,) * starts[0] + tuple(k for k, length in zip(counts, run, strict=True) for _ in range(length))
        return Plan(keeps, entering)

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        wanted = [AFFINITY, *(self._rows_at(site) for site in self.sites(shape))]
        if self.version == "2.0":
            wanted += [_gravity_at(site) for site in self.sites(shape)]
        return tuple(wanted)

    def in_llm(self, view: View) -> Selection:
        order = torch.sort(self.relation(view), descending=True, stable=True).indices  # (n,) best first
        if self.version == "2.0":
            return Selection(order[: view.keep].sort().values, positions="original")
        return self._recycled(view, order, self._kept(view))

    def relation(self, view: View) -> Tensor:
        """How much the raters look at each visual token, (n,); higher is kept."""
        rates = raters(view.signal(AFFINITY)).float()[:, None]  # (m, 1)
        rows = view.signal(self._rows_at(view.site))  # (m, n), or (h, m, n)
        if self.version == "2.0":
            looks = (rows / view.signal(_gravity_at(view.site)) * rates).sum(dim=1)  # (h, n)
            rows = looks[top_k(looks.sum(dim=1), self.heads)].mean(dim=0)
            return rows / rates.sum()
        return (rows * rates).sum(dim=0) / rates.sum()

    def noise(self, view: View, count: int) -> Tensor:
        """Uniform numbers in [0, 1) that part equal densities, (count,)."""
        return torch.rand(count, generator=view.generator()).to(view.hidden.device)

    def selection_flops(self, site: Site, n: int, k: int, d: int, shape: Shape) -> int:
        return 2 * recycled_of(n - kept_of(n, k)) ** 2 * d if self.version == "1.5" else 0

    def _rows_at(self, site: Site) -> Signal:
        return Signal("rows", layer=site.layer - 1, queries="text", per_head=self.version == "2.0", at=site.layer)

    def _alive(self, n: int, kept: int) -> int:
        """Tokens after a stage that keeps `kept` of n, recycled ones included."""
        return kept + clusters_of(n - kept) if self.version == "1.5" else kept

    def _least(self, n: int) -> int:
        return self._alive(n, 0) if n else 0

    def _native_counts(self, n: int) -> tuple[int, ...]:
        counts, alive = [], n
        for listed in LISTS[self.version][self.retain]:
            alive = self._alive(alive, min(listed, alive - 1))
            counts.append(alive)
        return tuple(counts)

    def _kept(self, view: View) -> int:
        """Tokens that stay as they are: the authors' number where it fits the plan, else the most that does."""
        stage = self.sites(view.shape).index(view.site)
        listed = min(LISTS[self.version][self.retain][stage], view.n - 1)
        return listed if self._alive(view.n, listed) == view.keep else kept_of(view.n, view.keep)

    def _exact_counts(self, n: int, total: int, run: list[int], layers: int) -> tuple[int, ...]:
        """Tokens after each stage whose sum over the layers behind the first is `total`. Raises BudgetInfeasible."""
        least = self._fewest(n, len(run))
        lowest = _spent(run, least)
        if total < lowest and self.version == "1.5":
            floor = ((layers - sum(run)) * n + lowest) / layers
            raise BudgetInfeasible(
                f"{self.name} needs >= {floor:g} of {n} tokens on average here, recycled ones included; raise --budget",
                floor,
            )
        aim = _on_the_line([least, *self._listed_counts(n), [n] * len(run)], max(total, lowest), run)
        counts: list[int] = []
        for stage, length in enumerate(run):
            before, left, later = counts[-1] if counts else n, total - _spent(run, counts), run[stage + 1 :]
            low = self._least(before)
            most = (left - _spent(later, self._fewest(low, len(later)))) / length  # the later stages need this much
            enough = left / sum(run[stage:])  # they cannot keep more than this one
            counts.append(min(max(round(min(max(aim[stage], enough), most)), low), before))
        return tuple(counts)

    def _fewest(self, n: int, stages: int) -> list[int]:
        """Tokens alive after each of the next stages if each keeps none."""
        counts: list[int] = []
        for _ in range(stages):
            n = self._least(n)
            counts.append(n)
        return counts

    def _listed_counts(self, n: int) -> list[list[float]]:
        """The authors' lists as tokens alive after each stage, scaled from 576 to n, fewest first."""
        lists = []
        for retain in sorted(LISTS[self.version]):
            alive, counts = 576, []
            for listed in LISTS[self.version][retain]:
                alive = self._alive(alive, listed)
                counts.append(alive * n / 576)
            lists.append(counts)
        return lists

    def _recycled(self, view: View, order: Tensor, kept: int) -> Selection:
        """The `kept` best rows, and behind them the means of clusters of the best dropped ones."""
        again = order[kept : kept + recycled_of(view.n - kept)]  # (r,) best first
        centre, slot = cluster(view.hidden[again], clusters_of(view.n - kept), self.noise(view, again.shape[0]))
        stay = order[:kept].sort().values
        assign = torch.full_like(order, -1)
        assign[stay] = torch.arange(kept, device=order.device)
        assign[again] = kept + slot
        members = torch.zeros(centre.shape[0], device=order.device).index_add_(0, slot, torch.ones_like(slot).float())
        weight = torch.ones(view.n, device=order.device).index_copy(0, again, 1 / (members[slot] + 1e-6))
        return Selection(torch.cat([stay, again[centre]]), assign, weight)


def _gravity_at(site: Site) -> Signal:
    return Signal("gravity", at=site.layer)


def raters(affinity: Tensor) -> Tensor:
    """Which text tokens rate: (m,) bool. affinity: (n, m) products of visual and text embeddings."""
    share = affinity.softmax(dim=1).mean(dim=0)  # (m,)
    above = share > share.mean()
    return above | ~above.any()


def cluster(tokens: Tensor, count: int, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (count,), highest density peak first, and the centre's number of each token (r,).

    tokens: (r, d). Density: of the `count` nearest, itself included; peak: density x distance to a denser token.
    """
    x = tokens.float()
    length = (x * x).sum(dim=1)
    squared = (length[:, None] + length - 2 * x @ x.T).clamp_min(0).fill_diagonal_(0) / x.shape[1]  # (r, r)
    density = torch.exp(-squared.topk(count, dim=1, largest=False).values.mean(dim=1)) + noise * 1e-6  # (r,)
    distance = squared.sqrt()
    denser = density[None, :] > density[:, None]
    peak = torch.where(denser, distance, distance.max()).min(dim=1).values * density
    centre = torch.sort(peak, descending=True, stable=True).indices[:count]
    slot = distance[:, centre].argmin(dim=1)
    slot[centre] = torch.arange(count, device=slot.device)
    return centre, slot


def recycled_of(dropped: int) -> int:
    """Dropped tokens that are clustered, of `dropped` >= 1."""
    return int(0.3 * dropped) + 1


def clusters_of(dropped: int) -> int:
    """Clusters that they make."""
    return recycled_of(dropped) // 10 + 1


def kept_of(n: int, k: int) -> int:
    """The most tokens of n that can stay as they are where k are alive afterwards, clusters included.

    One more kept is one more alive, or none, so a k between clusters_of(n) and n can always be met.
    """
    kept = min(k, n) - 1
    while kept + clusters_of(n - kept) > k:
        kept -= 1
    return kept


def _spent(run: list[int], counts: list[int] | list[float]) -> float:
    return sum(length * k for length, k in zip(run, counts, strict=False))


def _on_the_line(points: list[list[float]], total: float, run: list[int]) -> list[float]:
    """The first point on the line through `points` that costs `total`, between what its ends cost."""
    for start, end in pairwise(points):
        low, high = _spent(run, start), _spent(run, end)
        if min(low, high) <= total <= max(low, high):
            along = (total - low) / (high - low) if high != low else 0.0
            return [a + along * (b - a) for a, b in zip(start, end, strict=True)]
    return points[-1]
