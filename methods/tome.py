"""ToMe: merge the most similar tokens behind the attention of every ViT block, a few a block.

Paper: Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, arXiv:2210.09461. The authors' code
(facebookresearch/ToMe @ af95e4b) is CC BY-NC 4.0; nothing here is taken from it. Written from a description of what it
does, and compared with its outputs in tests/golden.

Each image alone: the rows stand in two halves by turns. By the cosine of its keys (before rotation, mean over heads)
each row of the first half finds the most similar one of the second; the r rows with the nearest partner join it. A
merged row is the mean of its members, weighted by how many tokens each stands for; later keys weigh log(size) more
(`proportional`). The rows that found no partner come first, then the second half. A CLS token takes the first place of
the first half and is never merged, so that the first half then begins with the second patch.

`r` is the authors' number of patches a block, for each image: at most half of them goes at once. `inflection` i tilts
it over the depth, from r (1 - i) to r (1 + i), whole numbers rounded down; `r` may also list the blocks' numbers.

Exact budget (ours): the n - k units go along the same line, and faster where halving could no longer reach k.

Departures
* Where g patches make one token (Qwen, InternVL) the authors' order breaks the merger's neighbourhoods. By default
  (ours) whole units merge, by their mean key; with `granularity="patch"` patches do, and what is left is packed g by g
  as it stands. r is then a multiple of g, rounded down. On models of one patch a token both are the authors' ToMe.
* DeepStack features taken before a merge are merged with the same weights. On models with 1-d RoPE the LLM numbers the
  rows as they stand; with M-RoPE, as in the ViT's rotation, a merged row stands where the one that was joined stood.
* Images of different sizes share a block's merges in proportion (the authors' batch has one size).
* Cosines are float32 (theirs: the model's dtype); of equal ones the lower place comes first (theirs: undefined).
* `order="raster"` (ours) puts the rows back in order at every block, for the LLM's sake; the halves then alternate in
  space in later blocks too.
* Distillation tokens are not supported: no VLM has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from methods.base import (
    IN_VIT,
    Budget,
    BudgetInfeasible,
    Least,
    Plan,
    Pruner,
    Range,
    Selection,
    Shape,
    Signal,
    Site,
    View,
    rows_of_unit,
)
from methods.ops import share, unit


@dataclass(frozen=True)
class ToMe(Pruner):
    """r: patches that go a block and image; inflection: its tilt, in [-1, 1]; proportional: log(size) on the keys."""

    name = "tome"
    title = "ToMe"
    paper = "arXiv:2210.09461"
    licence = "CC BY-NC 4.0 (not used here: independent implementation)"
    hooks = (IN_VIT,)
    cost = "O(n^2 d_k) a block"
    positions = "renumber"
    presets: ClassVar = {
        "decreasing": {"inflection": -1.0},
        "mae": {"proportional": False},
        "patches": {"granularity": "patch"},
        "raster": {"order": "raster"},
    }

    r: Annotated[int | tuple[int, ...], Least(0)] = 16
    inflection: Annotated[float, Range(-1, 1)] = 0.0
    proportional: bool = True
    granularity: Literal["unit", "patch"] = "unit"  # type: ignore[misc]
    order: Literal["official", "raster"] = "official"

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        seen, native = shape.in_vit, budget.kind == "native"
        alive = self._native(seen) if native else self._exact(min(budget.tokens, seen.n), seen)
        if not native and alive[-1] > budget.tokens:
            floor = next(k for k in range(budget.tokens + 1, seen.n + 1) if self._exact(k, seen)[-1] == k)
            raise BudgetInfeasible(
                f"tome halves an image's tokens at most in each of {shape.vit_layers} ViT blocks and leaves one: it "
                f"needs >= {floor} of {shape.n} tokens here, got {budget.tokens}; raise --budget",
                floor,
            )
        steps = zip([seen.n, *alive], alive, strict=False)
        keeps = {_site(block): after for block, (before, after) in enumerate(steps) if after < before}
        tokens = alive[-1] if keeps else shape.n
        if not native and tokens > budget.tokens:  # nothing to merge, yet fewer tokens than the prompt has (newlines)
            keeps, tokens = {_site(shape.vit_layers - 1): budget.tokens}, budget.tokens
        return Plan(keeps, (tokens,) * shape.llm_layers)

    def _native(self, shape: Shape) -> list[int]:
        """Units alive after each block by the authors' schedule."""
        alive = [shape.n]
        for r in schedule(shape.vit_layers, self.r, self.inflection):
            alive.append(_most_gone(alive[-1], alive[-1] - len(shape.grids) * (r // shape.unit_patches), shape))
        return alive[1:]

    def _exact(self, k: int, shape: Shape) -> list[int]:
        """Units alive after each block, k after the last one wherever halving can reach it."""
        layers = shape.vit_layers
        shares = [1 + self.inflection * (2 * block / max(layers - 1, 1) - 1) for block in range(layers)]
        caps = [max(k, len(shape.grids))]
        while len(caps) < layers:
            caps.append(_most_before(caps[-1], shape))
        alive = [shape.n]
        for block in range(layers):
            line = shape.n - round((shape.n - k) * sum(shares[: block + 1]) / sum(shares))
            alive.append(_most_gone(alive[-1], min(line, caps[-1 - block]), shape))
        return alive[1:]

    def needs(self, shape: Shape) -> tuple[Signal, ...]:
        return tuple(_keys(block) for block in range(shape.vit_layers))

    def in_vit(self, view: View) -> Selection | None:
        if view.keep == view.n:
            return None
        metric = view.signal(_keys(view.site.layer)).float().mean((1, 2))  # (n, head_dim)
        keep, slot, first, slots = [], [], 0, 0
        for n, k in self._counts(view.site, view.n, view.keep, view.shape):
            own, place = matched(metric[first : first + n], n - k, view.shape.vit_cls, self.order == "raster")
            keep.append(own + first)
            slot.append(place + slots)
            first, slots = first + n, slots + k
        assign = torch.cat(slot)
        total = view.size.new_zeros(slots).index_add(0, assign, view.size)  # (k,)
        return Selection(torch.cat(keep), assign, view.size / total[assign], key_bias=self.proportional)

    def _counts(self, site: Site, n: int, k: int, shape: Shape) -> list[tuple[int, int]]:
        """Rows of each image before and after a site."""
        each = rows_of_unit(site, self, shape)
        parts = (share(total // each, shape.images, least=1) for total in (n, k))
        return [(before * each, after * each) for before, after in zip(*parts, strict=True)]

    def alive_after(self, site: Site, plan: Plan, shape: Shape) -> tuple[tuple[int, int], ...]:
        return tuple((units, 0) for units in share(plan.keeps[site], shape.images, least=1))

    def selection_flops(self, site: Site, n: int, k: int, d: int, shape: Shape) -> int:
        pairs = sum(
            before // 2 * (before - before // 2) for before, after in self._counts(site, n, k, shape) if after < before
        )
        return 2 * pairs * shape.vit_head_width


def schedule(layers: int, r: int | tuple[int, ...], inflection: float = 0.0) -> list[int]:
    """Tokens that go in each block. A tuple names them, 0 behind its end; r is a line from r (1 - i) to its mirror."""
    if isinstance(r, tuple):
        return [*r, *[0] * layers][:layers]
    low = int(r * (1 - inflection))
    high = 2 * r - low
    return [int(low + (high - low) * block / max(layers - 1, 1)) for block in range(layers)]


def matched(metric: Tensor, r: int, cls: bool, raster: bool) -> tuple[Tensor, Tensor]:
    """Representatives (n - r,) in output order, and the slot of every row (n,), after r rows joined another.

    metric: (n, c). r <= n // 2. cls: the first half begins with the second row, and keeps its order.
    """
    n, device = len(metric), metric.device
    order = torch.arange(n, device=device)
    if not r:
        return order, order
    first, second = (order[1::2], order[0::2]) if cls else (order[0::2], order[1::2])
    direction = unit(metric)
    best, partner = (direction[first] @ direction[second].T).max(dim=1)  # (|first|,)
    ranking = torch.sort(best, descending=True, stable=True).indices
    joining, left = ranking[:r], ranking[r:]
    if cls:
        left = left.sort().values
    keep = torch.cat([first[left], second])  # (n - r,)
    slot = torch.empty_like(order)
    slot[keep] = order[: n - r]
    slot[first[joining]] = len(left) + partner[joining]
    if raster:
        keep, place = keep.sort()
        slot = place.argsort()[slot]
    return keep, slot


def _most_gone(now: int, wanted: int, shape: Shape) -> int:
    """The units nearest to `wanted`, from above, that one block can leave of `now`."""
    total = max(min(wanted, now), -(-now // 2), len(shape.grids))
    while not _one_block(now, total, shape):
        total += 1
    return total


def _most_before(after: int, shape: Shape) -> int:
    """The most units of which one block can leave `after`."""
    total = min(2 * after, shape.n)
    while not _one_block(total, after, shape):
        total -= 1
    return total


def _one_block(before: int, after: int, shape: Shape) -> bool:
    """Whether no image loses more than half of its units."""
    parts = (share(total, shape.images, least=1) for total in (before, after))
    return all(2 * left >= had for had, left in zip(*parts, strict=True))


def _site(block: int) -> Site:
    return Site(IN_VIT, block, "attention")


def _keys(block: int) -> Signal:
    return Signal("keys", "vit", block, rope=False)
