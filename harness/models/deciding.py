"""One prompt's pass, as all its sites share it: show the pruner a view, check its answer, note what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.models.sites import HOOK_POINTS, Tally, planned_site
from harness.models.trace import Decision, Trace
from methods.base import Plan, Pruner, Resize, Selection, Signal, Site, View

if TYPE_CHECKING:
    from harness.models.attention import Capture
    from harness.models.clip import Clip
    from harness.models.clock import Clock
    from harness.models.families.family import Family, Inputs

Rows = tuple[Tensor, Tensor, Tensor, Tensor]  # image, unit, kind, size of the rows of a view, (n,) each


@dataclass(frozen=True)
class Pass:
    """One prompt on its way through a model under a plan. Towers take it and hand on what they made of the prompt.

    What happens is noted in `trace` and `clock`; captures: queries and keys of the attention modules that `needs` asks
    for, by id(module), filled while they run.
    """

    family: Family
    pruner: Pruner | None
    prepared: Any
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    plan: Plan
    seed: int
    clock: Clock
    needs: tuple[Signal, ...]
    captures: Mapping[int, list[Capture]]
    trace: Trace
    clip: Clip | None = None

    @property
    def policy(self) -> str:
        """Positions where a selection gives none: the method's policy, which speaks of 1-d RoPE only."""
        return self.pruner.positions if self.pruner and self.family.rope == "1d" else "original"

    def acts_at(self, site: Site) -> bool:
        return site in self.plan.keeps

    def question(self, inputs: Inputs) -> Tensor:
        """Embeddings of the user's text, (q, d)."""
        return self.family.model.get_input_embeddings()(inputs.question_ids)

    def view(self, site: Site, inputs: Inputs, hidden: Tensor, rows: Rows, signals: Mapping[Signal, Tensor]) -> View:
        """View of the pruner at a site of the plan."""
        at = planned_site(site, self.plan, self.pruner, inputs.shape)
        image, unit, kind, size = rows
        return View(
            site=site,
            hidden=hidden,
            keep=at.keep_rows,
            image=image,
            unit=unit,
            kind=kind,
            size=size,
            shape=at.shape,
            seed=at.seed(self.seed),
            rope=self.family.rope,
            signals=signals,
            prepared=self.prepared,
        )

    def ask(self, view: View) -> Selection | tuple[Resize, ...] | None:
        return getattr(self.pruner, HOOK_POINTS[view.site.hook].method)(view)

    def checked(self, view: View, selection: Selection, gathered: int = 0, values: int = 0) -> None:
        """Check a selection against the plan and note its numbers. gathered: new aggregates, each summed over `values`.

        Raises InvalidSelection.
        """
        selection.validate(view.n, view.keep, gathered)
        self.count(view, selection.keep.shape[0], gathered * values)

    def count(self, view: View, k: int, summed: int = 0) -> None:
        """Note the numbers of a decision that leaves k rows, and what they cost."""
        width = HOOK_POINTS[view.site.hook].measured_width(view.hidden)
        tally = Tally(view.site, view.shape, view.n, k, width, summed)
        self.trace.sites.append(tally.entry)
        self.trace.spend(tally.flops(self.pruner))

    def note(self, view: View, selection: Selection, image: Tensor, unit: Tensor, packs: int = 1) -> None:
        """Note which units are alive behind a site, and what was decided over which rows. image, unit: of survivors."""
        self.trace.kept[view.site.label] = (image, unit)
        self.trace.decisions.append((view.site.label, Decision(view.image, view.unit, selection, packs)))


def by_image(image: Tensor, images: int) -> Tensor | None:
    """The stable order that brings rows together image by image; None where there is only one image."""
    return None if images == 1 else torch.sort(image, stable=True).indices


def grouped(selection: Selection, image: Tensor, images: int) -> Selection:
    """The same decision with its output rows image by image, as the prompt holds them.

    Methods answer in any order; the packed state of the ViT and the spans of the prompt hold one image after another.
    """
    order = by_image(image[selection.keep], images)
    if order is None:
        return selection
    assign = selection.assign
    if assign is not None:
        place = torch.argsort(order)
        assign = torch.where(assign < 0, assign, place[assign.clamp_min(0)])
    return replace(selection, keep=selection.keep[order], assign=assign)
