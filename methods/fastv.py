"""FastV: after K layers of the LLM, keep the tokens that the prompt's last token attends to most.

Paper: Chen et al., "An Image is Worth 1/2 Tokens After Layer 2: Plug-and-Play Inference Acceleration for Large
Vision-Language Models", ECCV 2024, arXiv:2403.06764. The authors' repository (pkunlp-icler/FastV @ d165972) has no
licence file at its root; nothing here is taken from it. Written from a description of what it does, and compared
with its outputs in tests/golden.

At the input of decoder layer K: score = attention probability that the last prompt token gives to each visual token
in layer K-1, mean over heads. The highest stay, in their original order and at their original positions; layers
before K keep all tokens in their cache. Pruned once, in the prefill. One ranking over all images of a sample.

Departures
* `query="last"` is the released code. The paper describes the attention received from all tokens; that is
  `query="all"` (the mean over all rows, tokens in front of the image included, which see none of it).
* The score is float32 (theirs: the mean over heads in the model's dtype); ties go to the lower index (theirs: none).
* K is given for the authors' 32 layers and mapped to the depth of the model at hand.
* K = 0, which in the authors' masking script means a random subset, is refused: that is the method `random`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

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
class FastV(Pruner):
    """k: layers that see all tokens, of `depth`. r: pruned share in native runs. query: whose attention counts."""

    name = "fastv"
    title = "FastV"
    paper = "arXiv:2403.06764"
    licence = "none stated (not used here: independent implementation)"
    hooks = (IN_LLM,)
    cost = "one attention row: O(T d), once"
    presets: ClassVar = {"k3": {"k": 3}, "r75": {"r": 0.75}, "k3-r75": {"k": 3, "r": 0.75}}

    k: Annotated[int, Least(1)] = 2
    depth: int = 32
    r: Annotated[float, Range(0, 1)] = 0.5
    query: Literal["last", "all"] = "last"

    def check_settings(self) -> None:
        if self.k >= self.depth:
            raise PruningError(f"k must be in 1..{self.depth - 1} (of depth {self.depth}), got {self.k}")

    def site(self, shape: Shape) -> Site:
        return Site(IN_LLM, map_depths((self.k,), self.depth, shape.llm_layers)[0])

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind != "native":
            return super().plan(budget, shape)
        site, n = self.site(shape), shape.n
        kept = round(n * (1 - self.r))  # half to even, as theirs
        return Plan({site: kept}, (n,) * site.layer + (kept,) * (shape.llm_layers - site.layer))

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        layer = self.site(shape).layer - 1
        rows = ("last",) if self.query == "last" else ("visual", "text")
        return tuple(Signal("rows", layer=layer, queries=which) for which in rows)

    def in_llm(self, view: View) -> Selection:
        rows = [view.signal(wanted).reshape(-1, view.n) for wanted in self.needs(view.shape)]  # each (q, n)
        score = sum(row.sum(dim=0) for row in rows)  # (n,) dividing by the number of rows changes no rank
        return Selection(top_k(score, view.keep))
