"""PACT: drop what is unimportant, cluster what is left by its keys, and let each cluster's mean speak for its size.

Paper: Dhouib, Buscaldi, Vanier, Shabou, "PACT: Pruning and Clustering-Based Token Reduction for Faster Visual
Language Models", CVPR 2025, arXiv:2504.08966. The authors' code (orailix/PACT @ cf9a0c9) is MIT; nothing here is taken
from it. Written from a description of what it does, and compared with its outputs in tests/golden.

At the input of decoder layer 4, on the queries and keys which that layer will compute:
* EUTI: score = attention that the mean query (all tokens up to the last visual one, unrotated) gives to a visual
  token, mean over heads, times the length of the token's hidden state. The best 55 % stay.
* DBDPC: cosine distance of rotated keys, density = sum of exp(-(distance / 2)^2). From the densest on, a token becomes
  a centre if it is farther than `cutoff` from every centre so far. Every other token joins its nearest centre.
* Dropped tokens within alpha x cutoff of a centre join it too. A cluster becomes the mean of its members' hidden
  states, at its centre's position; log(members) is added to the attention logits of its key from there on.

Ours
* Exact budgets: the authors' count depends on the picture. At least as many tokens as the budget are clustered, a
  bisection finds a cutoff that gives no more centres than asked, and the tokens farthest from their centre become
  centres until the count is met. `cluster=False` (preset "euti") is exact without any of this.
* Centres are found in a few parallel rounds instead of one by one: a token whose denser neighbours are all gone is a
  centre, and its neighbours go. Each round waits for the device once.

Departures
* Distances are float32 and ranks integers (theirs: the model's dtype, in which ranks collide); of equal densities the
  later token counts as denser. Ties of the score go to the lower index.
* The logarithm of the size is float32 (theirs: float16).
* On models that normalise queries and keys by head, the normalised ones are used.
* Several images: all tokens in one pool, as theirs. The layer is the authors' of 28, mapped to the model at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from methods.base import (
    IN_LLM,
    Budget,
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
from methods.ops import top_k


@dataclass(frozen=True)
class PACT(Pruner):
    """layer (of `depth`) whose input is reduced. keep: share that survives EUTI; cutoff: cosine distance of centres.

    alpha: dropped tokens within alpha x cutoff are merged. prune, cluster, retrieve, proportional: switch off EUTI,
    DBDPC, the retrieval of dropped tokens, the size bias.
    """

    name = "pact"
    title = "PACT"
    paper = "arXiv:2504.08966"
    licence = "MIT (not used here: independent implementation)"
    hooks = (IN_LLM,)
    cost = "O(n d + m^2 d_k), m the tokens that the first cut leaves"
    synchronises = "once a round of the walk to the centres, and for how many they are in native runs"
    presets: ClassVar = {
        "qwen2-vl": {"keep": 0.8, "cutoff": 0.1},
        "dbdpc": {"prune": False, "retrieve": False},
        "euti": {"cluster": False, "keep": 0.5},
    }

    layer: Annotated[int, Least(1)] = 4
    depth: int = 28
    keep: Annotated[float, Range(0, 1, above=True)] = 0.55
    cutoff: Annotated[float, Range(0, 2)] = 0.21
    alpha: Annotated[float, Least(0)] = 1.5
    prune: bool = True
    cluster: bool = True
    retrieve: bool = True
    proportional: bool = True

    def check_settings(self) -> None:
        if self.layer >= self.depth:
            raise PruningError(f"layer must be in 1..{self.depth - 1} (of depth {self.depth}), got {self.layer}")
        if not (self.prune or self.cluster):
            raise PruningError("prune and cluster are both off, so nothing would be reduced; leave one on")

    def site(self, shape: Shape) -> Site:
        return Site(IN_LLM, map_depths((self.layer,), self.depth, shape.llm_layers)[0])

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind != "native" or self.cluster:
            return super().plan(budget, shape)
        site, kept = self.site(shape), self.survivors(shape.n)
        return Plan({site: kept}, (shape.n,) * site.layer + (kept,) * (shape.llm_layers - site.layer))

    def survivors(self, n: int) -> int:
        """Tokens that EUTI leaves of n in native runs."""
        return int(n * self.keep) if self.prune else n

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        layer = self.site(shape).layer
        wanted = ((self.prune or not self.cluster, _rows_at(layer)), (self.cluster, _cosines_at(layer)))
        return tuple(signal for used, signal in wanted if used)

    def in_llm(self, view: View) -> Selection:
        m = self.survivors(view.n)
        if view.keep == 0:
            return Selection(torch.zeros(0, dtype=torch.int64, device=view.hidden.device))
        if not self.cluster:
            return Selection(top_k(self._importance(view), m if view.keep is None else view.keep))
        m = max(m, view.keep or 0)
        kept = top_k(self._importance(view), m) if m < view.n else torch.arange(view.n, device=view.hidden.device)
        distance = (1 - view.signal(_cosines_at(view.site.layer))).clamp_min_(0).fill_diagonal_(0)  # (n, n)
        near = distance.index_select(0, kept).index_select(1, kept) if m < view.n else distance  # (m, m)
        if view.keep is None:
            cutoff, is_centre = self.cutoff, centres(near, self.cutoff)
        else:
            cutoff, is_centre = exactly(near, view.keep)
        return self._merged(distance, kept, kept[is_centre], cutoff)

    def _importance(self, view: View) -> Tensor:
        return view.signal(_rows_at(view.site.layer)) * view.hidden.float().norm(dim=-1)  # (n,)

    def _merged(self, distance: Tensor, kept: Tensor, centre: Tensor, cutoff: float) -> Selection:
        """Rows joined to their nearest centre: the kept ones all, the others within alpha x cutoff."""
        gap, slot = distance[:, centre].min(dim=1)  # (n,)
        slot[centre] = torch.arange(centre.shape[0], device=centre.device)
        joins = gap <= self.alpha * cutoff if self.retrieve else torch.zeros_like(gap, dtype=torch.bool)
        joins[kept] = True
        members = torch.zeros(centre.shape[0], device=gap.device).index_add_(0, slot, joins.float())
        return Selection(centre, slot.masked_fill(~joins, -1), 1 / members[slot], key_bias=self.proportional)


def _rows_at(layer: int) -> Signal:
    return Signal("rows", layer=layer, queries="mean", rope=False)


def _cosines_at(layer: int) -> Signal:
    return Signal("cosines", layer=layer)


def density(distance: Tensor) -> Tensor:
    """How crowded the surroundings of each token are; higher is denser. (m, m) cosine distances -> (m,)."""
    return (distance / 2).square_().neg_().exp_().sum(dim=1)


def centres(distance: Tensor, cutoff: float) -> Tensor:
    """Which tokens are centres: (m,) bool. distance: (m, m), zero on the diagonal.

    The same set as a walk from the densest to the least dense token that takes each one farther than `cutoff` from all
    taken before it; of equal densities the later index is denser.
    """
    return _walked(distance <= cutoff, _places(distance))


def _places(distance: Tensor) -> Tensor:
    """When the walk comes to each token, 0 for the densest. (m, m) -> (m,)."""
    return torch.argsort(torch.sort(density(distance), stable=True).indices.flip(0))


def _walked(near: Tensor, place: Tensor) -> Tensor:
    """The centres of a walk, (m,) bool. near: (m, m) bool, place: (m,)."""
    found = torch.zeros_like(near[0])
    row = torch.arange(len(near), device=near.device)  # tokens that are still open; near and place are theirs
    while len(row):
        new = ~(near & (place[None, :] < place[:, None])).any(dim=1)  # no denser neighbour is open
        found.index_copy_(0, row, new)
        left = (~new & ~(near & new).any(dim=1)).nonzero()[:, 0]  # the one wait of a round
        row, place, near = row[left], place[left], near.index_select(0, left).index_select(1, left)
    return found


def exactly(distance: Tensor, count: int) -> tuple[float, Tensor]:
    """A cutoff and `count` centres, (m,) bool: those of the cutoff, then the tokens farthest from their centre.

    The cutoff gives `count` centres, or it is the least that a bisection found with fewer. 1 <= count <= m.
    """
    place = _places(distance)
    low, high = 0.0, 2.0  # all tokens are within a distance of 2
    found, size = _walked(distance <= high, place), 1
    for _ in range(16):
        if size == count:
            break
        middle = (low + high) / 2
        trial = _walked(distance <= middle, place)
        trial_size = int(trial.sum())
        if trial_size <= count:
            high, found, size = middle, trial, trial_size
        else:
            low = middle
    gap = distance.masked_fill(~found, torch.inf).min(dim=1).values.masked_fill(found, -torch.inf)  # (m,)
    return high, found.index_fill(0, top_k(gap, count - size), True)
