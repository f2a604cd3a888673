"""The sites of a plan, described once: for the pass that runs and measures them, and for the count that tells them.

The towers of harness/models ask the pruner at these sites; harness/flops tells from the same values what a run will
measure. A hook point is one entry of `HOOK_POINTS`, a place in the ViT is one value of `site_before`: the tower that
holds it calls the pruner there, everything else follows from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from typing import Protocol

from torch import Tensor

from methods.base import (
    HOOKS,
    IN_LLM,
    IN_VIT,
    INTERFACE,
    PRE_TOKENIZATION,
    Plan,
    Pruner,
    Shape,
    Signal,
    Site,
    rows_of_unit,
    shows_cls_rows,
)


class Sizes(Protocol):
    """The sizes of a model that the cost of a decision depends on; `harness.flops.dims.ModelDims` has them."""

    @property
    def vit_width(self) -> int: ...
    @property
    def llm_width(self) -> int: ...
    @property
    def unit_patches(self) -> int: ...
    @property
    def unit_pixel_values(self) -> int: ...
    @property
    def projectors(self) -> int: ...


@dataclass(frozen=True)
class HookPoint:
    """Properties of all sites of one hook point.

    method: name of the pruner's hook method. in_vit: its rows are units of the ViT (`Shape.in_vit`), not visual tokens
    of the prompt. width, measured_width: the width of a row, told from the model's sizes and measured on the rows
    (n, ...) of a view: kept apart, so that a test can hold one against the other. summed: values of one unit that an
    aggregate sums over, None where nothing can be gathered.
    """

    method: str
    in_vit: bool
    width: Callable[[Sizes], int]
    measured_width: Callable[[Tensor], int] = lambda rows: rows.shape[-1]
    summed: Callable[[Sizes], int] | None = None


HOOK_POINTS = {
    PRE_TOKENIZATION: HookPoint(
        "before_tokenization",
        in_vit=True,
        width=lambda sizes: sizes.unit_pixel_values,
        measured_width=lambda rows: prod(rows.shape[1:]),  # all colours of all pixels of a unit
    ),
    IN_VIT: HookPoint(
        "in_vit",
        in_vit=True,
        width=lambda sizes: sizes.vit_width,
        summed=lambda sizes: sizes.unit_patches * sizes.vit_width,
    ),
    INTERFACE: HookPoint(
        "at_interface",
        in_vit=False,
        width=lambda sizes: sizes.llm_width,
        summed=lambda sizes: sizes.projectors * sizes.llm_width,  # DeepStack's levels follow the same sum
    ),
    IN_LLM: HookPoint("in_llm", in_vit=False, width=lambda sizes: sizes.llm_width),
}


@dataclass(frozen=True)
class PlannedSite:
    """One site of a plan on one sample.

    ordinal: its place in the plan as the method wrote it, for the seed. keep: units (visual tokens) that must be alive
    afterwards, at most those that there are; None in native mode. shape: the sample as views at this site see it.
    rows_of_unit: rows of the view behind a unit. cls_rows: rows that join here, beside what the sites before left.
    """

    site: Site
    ordinal: int
    keep: int | None
    shape: Shape
    rows_of_unit: int
    cls_rows: int

    @property
    def point(self) -> HookPoint:
        return HOOK_POINTS[self.site.hook]

    @property
    def keep_rows(self) -> int | None:
        """`View.keep`: what must be alive afterwards, in rows of the view."""
        return None if self.keep is None else self.keep * self.rows_of_unit

    def seed(self, of_run: int) -> int:
        """`View.seed`: an own one for each site."""
        return (of_run * 1_000_003 + self.ordinal) % (1 << 62)


def planned_site(site: Site, plan: Plan, pruner: Pruner, shape: Shape) -> PlannedSite:
    """A site of `plan` on a sample of `shape` (as it enters the LLM; of the smaller images where they were resized)."""
    in_vit = HOOK_POINTS[site.hook].in_vit
    seen, keep = shape.in_vit if in_vit else shape, plan.keeps[site]
    if in_vit and keep is not None:
        # Plans count visual tokens, and newlines are some that the ViT has no units for: a plan that keeps most of
        # them may ask for more than it has.
        keep = min(keep, seen.n)
    joining = cls_rows(pruner, plan, shape) if site.hook == INTERFACE else 0
    return PlannedSite(site, list(plan.keeps).index(site), keep, seen, rows_of_unit(site, pruner, seen), joining)


def cls_rows(pruner: Pruner, plan: Plan, shape: Shape) -> int:
    """CLS tokens that pass the projector and stand in the interface's view, one an image; 0 where none are shown."""
    return len(shape.grids) if shows_cls_rows(pruner, plan, shape) else 0


def running_order(site: Site) -> tuple[int, int, str]:
    """Sort key of sites in the order in which a prompt meets them ("attention" stands before "block")."""
    return HOOKS.index(site.hook), site.layer, site.after


def site_before(half: int) -> Site:
    """The site in front of half a ViT block: the attention of block b is half 2b, its MLP half 2b + 1.

    A cut there spares this half and all behind it. In front of the first half are the pixels.
    """
    if not half:
        return Site(PRE_TOKENIZATION)
    return Site(IN_VIT, (half - 1) // 2, "attention" if half % 2 else "block")


@dataclass(frozen=True)
class Tally:
    """One decision in numbers, told or measured: n rows of `width` values seen, k of them kept.

    summed: values of rows that went into new aggregates, a multiply-accumulate each.
    """

    site: Site
    shape: Shape
    n: int
    k: int
    width: int
    summed: int = 0

    @property
    def entry(self) -> tuple[str, int, int, int]:
        """An entry of `Realised.sites`."""
        return self.site.label, self.n, self.k, self.width

    def flops(self, pruner: Pruner) -> int:
        """FLOPs of the decision by the method's own account, and of the sums that the harness makes for it."""
        return pruner.selection_flops(self.site, self.n, self.k, self.width, self.shape) + 2 * self.summed


_NO_LAYERS = {"vit": "features", "llm": "question"}  # the projector's input, the embeddings of the user's text


def attention_signals(needs: Iterable[Signal], tower: str) -> list[Signal]:
    """The signals that the attention of a tower's layers gives."""
    return [need for need in needs if need.tower == tower and need.kind != _NO_LAYERS[tower]]


def signals_read_at(needs: Iterable[Signal], layer: int) -> list[Signal]:
    """The LLM's signals that the site in front of decoder layer `layer` reads."""
    return [need for need in attention_signals(needs, "llm") if need.at in (None, layer)]
