"""What a forward pass will run, told from its plan alone: for tables and `flops_ratio` budgets, without a model.

harness/models/sites.py describes each site for this count and for the pass that runs, so that a run measures what is
told here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

from harness.flops.dims import ModelDims
from harness.flops.signals import llm_signal_flops, vit_signal_flops
from harness.flops.vit_tokens import Rows, Tower, tokens_that_ran, whole
from harness.models.sites import (
    PlannedSite,
    Tally,
    attention_signals,
    cls_rows,
    planned_site,
    running_order,
    site_before,
)
from harness.records.records import PromptText, Realised
from methods.base import IN_LLM, IN_VIT, InvalidSelection, MissingSignal, ModelInfo, Plan, Pruner, Shape, Signal
from methods.ops import share


@dataclass(frozen=True)
class Cut:
    """One decision of a plan. n: units (visual tokens, behind the projector) that enter its site; rows: units and
    aggregates of each image that are alive behind it."""

    at: PlannedSite
    n: int
    rows: Rows

    @property
    def alive(self) -> int:
        return sum(units + aggregates for units, aggregates in self.rows)

    def tally(self, dims: ModelDims) -> Tally:
        """The decision in numbers, in rows of its view. Raises InvalidSelection for an aggregate where none can be."""
        point, each = self.at.point, self.at.rows_of_unit
        units, aggregates = (sum(column) for column in zip(*self.rows, strict=True))
        if aggregates and point.summed is None:
            raise InvalidSelection(f"{self.at.site.label} has no aggregates, alive_after says {aggregates}")
        # A new aggregate sums over all rows of the view, the running one included: it is folded into the new one.
        summed = aggregates * self.n * point.summed(dims) if aggregates else 0
        return Tally(self.at.site, self.at.shape, self.n * each, units * each, point.width(dims), summed)


def unpruned_realised(dims: ModelDims, shape: Shape, text_tokens: int) -> Realised:
    """What runs without a method."""
    return planned_realised(dims, shape, Plan({}, (shape.n,) * shape.llm_layers), PromptText(text_tokens, 0, 0))


def planned_realised(
    dims: ModelDims,
    shape: Shape,
    plan: Plan,
    text: PromptText,
    pruner: Pruner | None = None,
    model: ModelInfo | None = None,
    ran: Realised | None = None,
) -> Realised:
    """What will run under `plan`; masks (`kept`) stay empty, since which tokens survive depends on the picture. So does
    how full windows are behind a cut in the ViT, or tiles: `vit_attended` and `vit_tokens` are estimates there.

    pruner: the method that made the plan, None for one that costs nothing and gathers nothing. model: what the method
    was prepared for; needed where it puts extra tokens into the ViT. ran: a run of this plan, to take from it of
    which tiles the units were; without one they are shared by the tiles' sizes. Raises ValueError for a plan in native
    mode, which only a run can tell, and MissingSignal for a method that asks a CLIP model.
    """
    if not plan.entering or any(keep is None for keep in plan.keeps.values()):
        raise ValueError("a plan in native mode has no token counts; run it and read what it realised")
    pruner = pruner or Pruner()
    if pruner.clip:
        raise MissingSignal("what a CLIP model costs depends on the question's words; ask for tokens, not for FLOPs")
    tower = Tower(dims, shape, pruner.extra_vit_token_count() if plan.layers_of(IN_VIT) else 0)
    needs = pruner.needs(shape) if plan.keeps else ()
    cuts = _cuts(pruner, plan, shape)
    tallies = [cut.tally(dims) for cut in cuts]
    halves = _halves(tower, cuts, ran)
    blocks = halves[::2]
    vit_tokens, mlp_tokens = (tuple(map(tower.tokens, halves[start::2])) for start in (0, 1))
    vit_attended = tuple(tower.attended(number, rows) for number, rows in enumerate(blocks))
    flops = sum(tally.flops(pruner) for tally in tallies)
    flops += _vit_signal_flops(tower, needs, blocks) + _llm_signal_flops(dims, needs, cuts, plan, text)
    if tower.extra:
        assert model is not None, "extra ViT tokens cost what the model's sizes say"
        flops += len(tower.grids) * pruner.extra_vit_flops(text.question, model)
    return Realised(
        vit_tokens=vit_tokens,
        merged_units=_merged_units(cuts, shape) + cls_rows(pruner, plan, shape),
        entering=plan.entering,
        text_tokens=text.total,
        sites=tuple(tally.entry for tally in tallies),
        selection_flops=flops,
        # () where nothing differs from `vit_tokens`, as a trace has it
        vit_mlp_tokens=() if mlp_tokens == vit_tokens else mlp_tokens,
        vit_attended=() if vit_attended == vit_tokens else vit_attended,
    )


def _cuts(pruner: Pruner, plan: Plan, shape: Shape) -> list[Cut]:
    """The decisions of a plan in the order in which they run."""
    sites = {site: planned_site(site, plan, pruner, shape) for site in plan.keeps}
    capped = replace(plan, keeps={site: at.keep for site, at in sites.items()})
    in_vit, in_prompt, cuts = shape.in_vit.n, shape.n, []
    for site in sorted(sites, key=running_order):
        at = sites[site]
        rows = pruner.alive_after(site, capped, at.shape) or whole(share(at.keep, at.shape.images))
        cut = Cut(at, in_vit if at.point.in_vit else in_prompt + at.cls_rows, rows)
        cuts.append(cut)
        # Behind a cut in the ViT the prompt is as long as the plan says, not as the ViT's units: where some visual
        # tokens are newlines, these take what the units leave (harness.models.interface drops the others).
        in_vit, in_prompt = (cut.alive, plan.keeps[site]) if at.point.in_vit else (in_vit, cut.alive)
    return cuts


def _halves(tower: Tower, cuts: Iterable[Cut], ran: Realised | None) -> list[Rows]:
    """Rows of the attention and the MLP of each block, in turns."""
    by_site = {cut.at.site: cut.rows for cut in cuts}
    now, halves = tower.entering(), []
    for half in range(2 * tower.shape.vit_layers):
        if site_before(half) in by_site:
            now = tower.spread(by_site[site_before(half)], tokens_that_ran(ran, half) if ran else ())
        halves.append(now)
    return halves


def _merged_units(cuts: Iterable[Cut], shape: Shape) -> int:
    """Rows of the projector: what the last cut in the ViT left."""
    return ([shape.in_vit.n] + [cut.alive for cut in cuts if cut.at.point.in_vit])[-1]


def _vit_signal_flops(tower: Tower, needs: Iterable[Signal], blocks: list[Rows]) -> int:
    """Of each image or tile, from the rows that its block's attention ran on: a cut behind it comes too late."""
    flops = 0
    for signal in attention_signals(needs, "vit"):
        rows = blocks[signal.layer]
        images = zip(tower.grids, rows, tower.tokens(rows), tower.windows(signal.layer, rows), strict=True)
        for grid, (units, _), tokens, windows in images:
            asking = min(units, prod(grid))  # padding asks nothing
            flops += vit_signal_flops(tower.dims, signal, asking, tokens, tower.extra, windows)
    return flops


def _llm_signal_flops(
    dims: ModelDims, needs: Iterable[Signal], cuts: Iterable[Cut], plan: Plan, text: PromptText
) -> int:
    """Of each in-LLM site, over the visual tokens that enter it."""
    inside = [cut for cut in cuts if cut.at.site.hook == IN_LLM]
    return sum(llm_signal_flops(dims, needs, cut.at.site, cut.n, plan.entering, text) for cut in inside)
