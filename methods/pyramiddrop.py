"""PyramidDrop: drop in stages, each time keeping the tokens that the prompt's last token will attend to most.

Paper: Xing et al., "PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy
Reduction", CVPR 2025, arXiv:2410.17247. The authors' code (Cooperx521/PyramidDrop @ 6444f30) is MIT; nothing here is
taken from it. Written from a description of what it does, and compared with its outputs in tests/golden.

At the input of decoder layers 8, 16 and 24: score = attention probability that the last prompt token gives to each
visual token in the layer that is about to run, on the states as they are, mean over heads. The highest stay, in their
original order, and positions are numbered anew. Native: a half, a quarter, an eighth of the original tokens.

Ours: exact budgets. The authors give one schedule (47 % on average). A budget is met by a geometric one: each stage
keeps the same share of the stage before, found by bisection; the last count takes up what rounding left.

Departures
* The score is float32 (theirs: the mean over heads in the model's dtype); ties go to the lower index.
* Queries and keys of the next layer are computed for the score and again in the layer, as theirs; no values are.
* Positions are renumbered where the model counts in one dimension; ids of rows and columns (M-RoPE) are kept.
* Several images: one ranking over all (theirs: the first image only).
* Layers are given for the authors' 32 and mapped to the depth of the model at hand. Training is not covered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

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
    one_site_plan,
)
from methods.ops import top_k


@dataclass(frozen=True)
class PyramidDrop(Pruner):
    """layers (of `depth`) whose input is cut; ratios: share of the original tokens after each cut in native runs."""

    name = "pyramiddrop"
    title = "PyramidDrop"
    paper = "arXiv:2410.17247"
    licence = "MIT (not used here: independent implementation)"
    hooks = (IN_LLM,)
    cost = "one attention row a stage: O(T d)"
    positions = "renumber"

    layers: Annotated[tuple[int, ...], Least(1)] = (8, 16, 24)
    depth: int = 32
    ratios: Annotated[tuple[float, ...], Range(0, 1)] = (0.5, 0.25, 0.125)

    def check_settings(self) -> None:
        if not self.layers or max(self.layers) >= self.depth or list(self.layers) != sorted(set(self.layers)):
            raise PruningError(f"layers must ascend in 1..{self.depth - 1} (of depth {self.depth}), got {self.layers}")
        if len(self.ratios) != len(self.layers) or list(self.ratios) != sorted(self.ratios, reverse=True):
            raise PruningError(f"ratios must descend, one for each of {self.layers}, got {self.ratios}")

    def sites(self, shape: Shape) -> tuple[Site, ...]:
        return tuple(Site(IN_LLM, layer) for layer in map_depths(self.layers, self.depth, shape.llm_layers))

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        sites, n = self.sites(shape), shape.n
        starts = [site.layer for site in sites]
        run = [end - start for start, end in zip(starts, [*starts[1:], shape.llm_layers], strict=True)]
        if budget.kind == "native":
            counts = tuple(int(n * ratio) for ratio in self.ratios)
        else:
            one_site_plan(self.name, sites[0], budget, shape)  # refuses what no schedule can reach
            counts = geometric_counts(n, shape.llm_layers * budget.tokens - starts[0] * n, run)
        before = (n, *counts)
        keeps = {site: k for site, k, alive in zip(sites, counts, before, strict=False) if k < alive}
        entering = (n,) * starts[0] + tuple(k for k, layers in zip(counts, run, strict=True) for _ in range(layers))
        return Plan(keeps, entering)

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        return tuple(_score_of(site) for site in self.sites(shape))

    def in_llm(self, view: View) -> Selection:
        return Selection(top_k(view.signal(_score_of(view.site)), view.keep))


def _score_of(site: Site) -> Signal:
    return Signal("rows", layer=site.layer, queries="last", at=site.layer)


def geometric_counts(n: int, total: int, run: list[int]) -> tuple[int, ...]:
    """Tokens after each stage, each the same share of the stage before, whose sum over layers is `total`.

    run: layers that run on each count, one entry for each stage. 0 <= total <= n * sum(run). Off by less than half of
    the last stage's layers, unless rounding left nothing for it.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        spent = sum(layers * n * rate**stage for stage, layers in enumerate(run, 1))
        low, high = (rate, high) if spent < total else (low, rate)
    counts: list[int] = []
    for stage, layers in enumerate(run, 1):
        left = total - sum(layers * k for layers, k in zip(run, counts, strict=False))
        exact = left / layers if stage == len(run) else n * high**stage
        counts.append(min(max(round(exact), 0), counts[-1] if counts else n))
    return tuple(counts)
