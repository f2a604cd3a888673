"""DivPrune: keep the k tokens that are mutually farthest apart.

Paper: Alvar, Singh, Akbari, Zhang, "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models",
CVPR 2025, arXiv:2503.02175. The authors' code (vbdi/divprune @ 799e2d9) is CC BY-NC 4.0; nothing here is taken
from it. Written from a description of what it does, and compared with its outputs in tests/golden.

Greedy max-min selection on cosine distances between the embeddings that enter the LLM. The first token is the one
whose nearest neighbour is farthest; each next one is farthest from those already chosen. One pool over all images.

Ours: the running minimum. The authors recompute, at every step, a minimum over all rows chosen so far; the
elementwise minimum of the old minimum and the new row is the same number.

Departures
* A chosen token is never chosen again. The authors' loop repeats indices once fewer than k distinct vectors are
  left; the first tokens chosen are the same, and the budget is met.
* Distances are float32 whatever the model's dtype (theirs: the model's); on equal inputs the indices are equal.
* A zero vector is at distance 1 from every token (theirs: NaN).
* `order="spatial"` is the released code; the paper's own numbers came from `order="selection"`, tokens in the order
  in which they were chosen (vbdi/divprune issue 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from methods.base import INTERFACE, Budget, Plan, Pruner, Range, Selection, Shape, Site, View
from methods.captured import Captured, Loop
from methods.ops import cosines, cosines_flops


@dataclass(frozen=True)
class DivPrune(Pruner):
    """order: of the survivors. ratio: kept share in native runs, the authors' 0.098 (56 of 576)."""

    name = "divprune"
    title = "DivPrune"
    paper = "arXiv:2503.02175"
    licence = "CC BY-NC 4.0 (not used here: independent implementation)"
    hooks = (INTERFACE,)
    cost = "O(n^2 d + n k), the second part in k steps"
    positions = "renumber"
    presets: ClassVar = {"paper": {"order": "selection"}}

    order: Literal["spatial", "selection"] = "spatial"
    ratio: Annotated[float, Range(0, 1, above=True)] = 0.098

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind == "native":  # banker's rounding, as theirs
            budget = Budget("layer_average", max(1, round(self.ratio * shape.n)))
        return super().plan(budget, shape)

    def at_interface(self, view: View) -> Selection:
        chosen = max_min_subset(view.hidden, view.keep, self._loop)
        return Selection(chosen if self.order == "selection" else chosen.sort().values)

    @cached_property
    def _loop(self) -> Loop:
        return Captured(farthest_first)

    def selection_flops(self, site: Site, n: int, k: int, d: int, shape: Shape) -> int:
        return cosines_flops(n, d)


def max_min_subset(tokens: Tensor, k: int, loop: Loop | None = None) -> Tensor:
    """(k,) indices in the order of choice, each farthest from those chosen before it.

    tokens: (n, d), any float dtype, compared by cosine in float32; k <= n. Ties go to the lower index.
    """
    return (loop or farthest_first)(cosines(tokens).neg_().add_(1), k)


def farthest_first(distance: Tensor, k: int) -> Tensor:
    """`max_min_subset` of tokens at these distances, (n, n)."""
    chosen = torch.zeros(k, dtype=torch.int64, device=distance.device)
    gap = nearest_neighbour(distance)  # (n,) then: distance to the closest chosen token
    for step in range(k):  # each choice needs the one before it; nothing is read back to the host
        best = torch.argmax(gap, dim=0, keepdim=True, out=chosen[step : step + 1])
        row = distance.index_select(0, best)[0]
        gap = torch.minimum(gap, row) if step else row
        gap.index_fill_(0, best, -torch.inf)
    return chosen


def nearest_neighbour(distance: Tensor) -> Tensor:
    """The second smallest entry of each column (the smallest is the token itself). (n, n) -> (n,)."""
    return distance.scatter(0, distance.argmin(dim=0, keepdim=True), torch.inf).amin(dim=0)
