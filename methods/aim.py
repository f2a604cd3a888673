"""AIM: merge similar tokens before the LLM, then drop the least important ones in its later layers, down to none.

Paper: Zhong et al., "AIM: Adaptive Inference of Multi-Modal LLMs via Token Merging and Pruning", ICCV 2025,
arXiv:2412.03248. The authors' code (LaVi-Lab/AIM @ edc24e9) is Apache-2.0; nothing here is taken from it. Written from
a description of what it does, and compared with its outputs in tests/golden.

Merging, each image alone, in stages: tokens at even places look for the most similar one at an odd place (cosine of
`metric`), and those with the most similar partner become one plain mean with it and with all others that chose it. A
first stage merges half of the tokens, a second a quarter, and so on until the budget is met.

Pruning: after layer l from `start` on, what is left of the merged tokens is the share 1 - (l - start + 1) / ramp. The
most important stay: PageRank on the layer's attention among all tokens, text included, at temperature `tau`,
`iterations` steps from the uniform distribution; root mean square over heads.

Exact budgets (ours): the ramp stays where the authors have it, and as many tokens are merged as the budget asks for;
where that is more than there are, nothing is merged and the ramp starts later. The ramp's counts take the remainder.

Departures
* Pruned tokens are gone: the authors only hide them from later layers, where they still take part as queries, so
  that their code is no faster. Their selections and ours differ in the last layers of the ramp (tests/golden).
* LLaVA-1.5's recipe merges in front of the projector, by keys of the layer behind; here merging always happens between
  projector and LLM. metric="keys": the ViT's keys before rotation, those of a unit's patches side by side; FLOPs count
  them as if they were as wide as tokens.
* order="official" is the released code: tokens without a partner come first, in the order of their similarity, then
  the odd places. order="raster" sorts them. With M-RoPE a merged token has the position of its odd place (theirs, for
  Qwen2-VL: ids of a grid of half the size, whatever the order); otherwise positions are renumbered, as theirs.
* One ranking over all images of a prompt (theirs: one image); images share the merged tokens in proportion to size.
* Scores are float32; counts are exact fractions rounded down; ties go to the lower index (theirs: none).
* `start` and `ramp` are given for the authors' 28 layers and mapped to the depth of the model at hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from methods.base import (
    IN_LLM,
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
    map_depths,
)
from methods.ops import share, top_k, unit

_CACHED = 2**18  # logits that a CPU takes at once: its caches hold them from the division to the last step


@dataclass(frozen=True)
class Aim(Pruner):
    """merge: share of tokens that merging leaves in native runs (1.0: no merging). metric: what is compared.

    order: of merged tokens. start, ramp: tokens go after `ramp` layers from layer `start` on, of `depth`.
    """

    name = "aim"
    title = "AIM"
    paper = "arXiv:2412.03248"
    licence = "Apache-2.0 (not used here: independent implementation)"
    hooks = (INTERFACE, IN_LLM)
    cost = "O(h n^2) a scoring of one layer, at every layer that prunes; O(n^2 d) a merge"
    presets: ClassVar = {
        "llava-1.5": {"merge": 0.125, "start": 13, "depth": 32},
        "llava-1.5-shipped": {"merge": 0.4375, "start": 13, "depth": 32},
        "raster": {"order": "raster"},
    }

    merge: Annotated[float, Range(0, 1, above=True)] = 0.25
    metric: Literal["tokens", "keys"] = "tokens"
    order: Literal["official", "raster"] = "official"
    start: Annotated[int, Least(1)] = 14
    ramp: Annotated[int, Least(2)] = 8
    depth: int = 28
    tau: Annotated[float, Range(0, above=True)] = 0.1
    iterations: Annotated[int, Least(1)] = 5

    def check_settings(self) -> None:
        if self.start + self.ramp > self.depth:
            raise PruningError(f"start and ramp must fit {self.depth} layers, got {self.start} + {self.ramp}")

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        start, ramp = self._layers(shape)
        if budget.kind == "layer_average":
            merged, start, counts = self._exact(budget.tokens * shape.llm_layers, start, ramp, shape)
        else:
            native = budget.kind == "native"
            merged = sum(_halved(n, self.merge) for n in shape.images) if native else budget.tokens
            counts = tuple(merged * (ramp - step) // ramp for step in range(1, ramp + 1))
        images = len(shape.images)
        if merged < images:
            floor = images if budget.kind == "interface_kept" else images * _layers_worth(start, ramp, shape)
            raise BudgetInfeasible(f"aim merges each of {images} images into a token at least; raise --budget", floor)
        keeps = {Site(INTERFACE): merged} if merged < shape.n else {}
        entering = [merged] * (start + 1)
        for layer, count in enumerate(counts, start + 1):
            if layer < shape.llm_layers and count < entering[-1]:
                keeps[Site(IN_LLM, layer)] = count
            entering.append(count)
        entering += [0] * shape.llm_layers
        return Plan(keeps, tuple(entering[: shape.llm_layers]))

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        first = self._layers(shape)[0] + 1  # a generous budget starts later
        attention = tuple(_attention(layer) for layer in range(first, shape.llm_layers))
        return attention if self.metric == "tokens" else (_keys(shape), *attention)

    def at_interface(self, view: View) -> Selection:
        metric = view.hidden if self.metric == "tokens" else view.signal(_keys(view.shape)).flatten(1)
        keep, assign, weight, start = [], [], [], 0
        shares = share(view.keep, view.shape.images, least=1)
        for rows, k in zip(metric.split(view.shape.images), shares, strict=True):
            merged = merging(rows, k, self.order)
            assert merged.assign is not None and merged.weight is not None
            assign.append(merged.assign + sum(map(len, keep)))
            keep.append(merged.keep + start)
            weight.append(merged.weight)
            start += len(rows)
        positions = "renumber" if view.rope == "1d" else None
        return Selection(torch.cat(keep), torch.cat(assign), torch.cat(weight), positions=positions)

    def in_llm(self, view: View) -> Selection:
        score = importance(view.signal(_attention(view.site.layer)), self.tau, self.iterations)  # (T,)
        return Selection(top_k(score[: view.n], view.keep))

    def selection_flops(self, site: Site, n: int, k: int, d: int, shape: Shape) -> int:
        if site.hook == IN_LLM:
            return 2 * (self.iterations - 1) * shape.llm_heads * (n + shape.text_tokens) ** 2
        flops = 0
        for tokens, kept in zip(shape.images, share(k, shape.images, least=1), strict=True):
            for merged in stages(tokens, kept):
                flops += 2 * (tokens - tokens // 2) * (tokens // 2) * d
                tokens -= merged
        return flops

    def _layers(self, shape: Shape) -> tuple[int, int]:
        """`start` and `ramp` on this model."""
        layers = shape.llm_layers
        return map_depths((self.start,), self.depth, layers)[0], max(2, round(self.ramp / self.depth * layers))

    def _exact(self, total: int, start: int, ramp: int, shape: Shape) -> tuple[int, int, tuple[int, ...]]:
        """Tokens after merging, first pruning layer and counts behind it: `total` tokens over all layers."""
        layers, n = shape.llm_layers, shape.n
        merged = round(total / (_layers_worth(start, ramp, shape) * layers))
        if merged > n:
            merged, used = n, total / n  # layers that all tokens would fill
            ramp = max(2, min(ramp, int(2 * (layers - used)) + 1))
            start = max(start, round(used - (ramp - 1) / 2) - 1)
        steps = range(1, min(ramp, layers - start))  # the last count of a whole ramp is 0
        left, before, counts = max(0, total - merged * (start + 1)), merged, []
        for step in steps:
            weights = sum(ramp - later for later in range(step, steps.stop))
            before = min(before, (2 * left * (ramp - step) + weights) // (2 * weights))
            left -= before
            counts.append(before)
        return merged, start, (*counts, 0)


def _attention(site: int) -> Signal:
    return Signal("logits", layer=site - 1, queries="all", per_head=True, at=site)


def _keys(shape: Shape) -> Signal:
    return Signal("keys", tower="vit", layer=shape.vit_layers - 1, rope=False)


def _layers_worth(start: int, ramp: int, shape: Shape) -> float:
    """The layer average of one merged token, as a share."""
    counts = sum((ramp - step) / ramp for step in range(1, min(ramp, shape.llm_layers - start)))
    return (start + 1 + counts) / shape.llm_layers


def _halved(n: int, merge: float) -> int:
    """What stages of n // 2, n // 4, ... leave of n: those whose binary digit of 1 - merge is set."""
    kept, rest = n, 1 - merge
    for halvings in range(1, n.bit_length() + 1):
        if rest >= 0.5**halvings:
            rest -= 0.5**halvings
            kept -= min(n >> halvings, kept // 2)
    return kept


def stages(n: int, k: int) -> Iterator[int]:
    """How many tokens go in each stage, n // 2, n // 4, ... and at most every second one, until k are left. k >= 1."""
    now, halvings = n, 1
    while now > k:
        merged = min(n >> halvings or now // 2, now // 2, now - k)
        yield merged
        now, halvings = now - merged, halvings + 1


def merging(metric: Tensor, k: int, order: str = "official") -> Selection:
    """The rows of one image (n, c) merged into k slots: means of means, stage by stage. 1 <= k <= n.

    A slot's representative is the odd place that the others joined, or the token that found no partner.
    """
    n, device = len(metric), metric.device
    keep = torch.arange(n, device=device)  # (t,) representatives
    slot = torch.arange(n, device=device)  # (n,) slot of each row
    weight = torch.ones(n, device=device)
    metric = metric.float()
    for merged in stages(n, k):
        place = torch.arange(len(metric), device=device)
        even, odd = place[::2], place[1::2]
        best, partner = (unit(metric[even]) @ unit(metric[odd]).T).max(dim=1)
        ranked = torch.sort(best, descending=True, stable=True).indices
        source, alone = ranked[:merged], ranked[merged:]
        new = torch.empty_like(place)  # (t,) the next slot of each
        new[even[alone]] = torch.arange(len(alone), device=device)
        new[odd] = torch.arange(len(odd), device=device) + len(alone)
        new[even[source]] = partner[source] + len(alone)
        count = metric.new_zeros(len(metric) - merged).index_add_(0, new, torch.ones_like(new, dtype=metric.dtype))
        summed = metric.new_zeros(len(count), metric.shape[1]).index_add_(0, new, metric)
        metric = summed / count[:, None]
        weight = weight / count[new[slot]]
        slot, keep = new[slot], torch.cat([keep[even[alone]], keep[odd]])
    if order == "raster":
        ascending = torch.sort(keep).indices
        keep, slot = keep[ascending], torch.argsort(ascending)[slot]
    return Selection(keep, slot, weight)


def importance(logits: Tensor, tau: float, iterations: int) -> Tensor:
    """PageRank of each token, (T,), higher is kept. logits: (h, T, T), -inf or very low where nothing is attended."""
    heads, length, _ = logits.shape
    at_once = max(1, _CACHED // length**2) if logits.device.type == "cpu" else heads
    ranks = [_pagerank((part.float() / tau).softmax(dim=-1), iterations) for part in logits.split(at_once)]
    return torch.cat(ranks).square().mean(dim=0).sqrt()


def _pagerank(transition: Tensor, iterations: int) -> Tensor:
    """(h, T, T) -> (h, T): where a walk from anywhere is after `iterations` steps."""
    rank = transition.mean(dim=1, keepdim=True)  # (h, 1, T): the first step, from 1 / T everywhere
    for _ in range(iterations - 1):
        rank = rank @ transition
    return rank[:, 0]
