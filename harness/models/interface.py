"""Visual tokens between projector and LLM: the rows, their features, and what a selection does to both."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.models.families.family import Features, Slots
from harness.models.prompt import VisualRows
from harness.models.vision_state import VisionState
from methods.base import AGGREGATE, Signal
from methods.selection import Selection, aggregate, reduce, reduce_sizes


@dataclass(frozen=True)
class Visual:
    """Rows in prompt order (aggregates last in their image) and the features that belong to them."""

    rows: VisualRows
    features: Features


def at_interface(state: VisionState, features: Features) -> Visual:
    """The rows of a finished vision state, in the order of `Family.project`."""
    if features.slots is not None:
        return Visual(features.slots.rows, features)
    _, image, unit, kind, size = state.rows()
    counts = tuple(segment.units + segment.aggregate for segment in state.segments)
    order = by_image(image, len(counts))
    rows = VisualRows(*(x if order is None else x[order] for x in (image, unit, kind, size)), counts)
    return Visual(rows, features)


def select(visual: Visual, selection: Selection) -> Visual:
    """The survivors of an interface selection; DeepStack rows follow the very same sums."""
    rows = visual.rows
    images = len(rows.counts)
    gathering = _images_that_gather(rows, selection)
    image = torch.cat([rows.image[selection.keep], rows.image.new_tensor(gathering)])
    order = by_image(image, images)

    def follow(x: Tensor) -> Tensor:
        extra = [aggregate(_only(selection, rows.image, index), x)[None] for index in gathering]
        out = torch.cat([reduce(selection, x), *extra])
        return out if order is None else out[order]

    def ids(kept: Tensor, of_aggregate: int) -> Tensor:
        out = torch.cat([kept, kept.new_full((len(gathering),), of_aggregate)])
        return out if order is None else out[order]

    counts = [image.shape[0]] if images == 1 else torch.bincount(image, minlength=images).tolist()
    survivors = VisualRows(
        image=image if order is None else image[order],
        unit=ids(rows.unit[selection.keep], -1),
        kind=ids(rows.kind[selection.keep], AGGREGATE),
        size=ids(reduce_sizes(selection, rows.size), 1),
        counts=tuple(counts),
    )
    features = replace(
        visual.features,
        tokens=follow(visual.features.tokens),
        deepstack=tuple(follow(level) for level in visual.features.deepstack),
    )
    return Visual(survivors, features)


def by_image(image: Tensor, images: int) -> Tensor | None:
    """The stable order that brings rows together image by image; None where there is only one image."""
    return None if images == 1 else torch.sort(image, stable=True).indices


def grouped(selection: Selection, image: Tensor, images: int) -> Selection:
    """The same decision with its output rows image by image, as the prompt holds them."""
    order = by_image(image[selection.keep], images)
    if order is None:
        return selection
    assign = selection.assign
    if assign is not None:
        place = torch.argsort(order)
        assign = torch.where(assign < 0, assign, place[assign.clamp_min(0)])
    return replace(selection, keep=selection.keep[order], assign=assign)


def _images_that_gather(rows: VisualRows, selection: Selection) -> list[int]:
    """Images from which something is dropped get an aggregate, if the selection aggregates at all."""
    if selection.aggregate is None:
        return []
    if len(rows.counts) == 1:
        return [0] if selection.keep.shape[0] < rows.n else []
    kept = torch.bincount(rows.image[selection.keep], minlength=len(rows.counts)).tolist()
    return [index for index, (alive, count) in enumerate(zip(kept, rows.counts, strict=True)) if alive < count]


def _only(selection: Selection, image: Tensor, index: int) -> Tensor:
    assert selection.aggregate is not None
    return selection.aggregate * (image == index)


# LLaVA-NeXT's newlines are visual tokens of the prompt that are no ViT tokens. At the interface and in the LLM they are
# rows like any other, with zeros for ViT signals and projector inputs. In front of the interface they do not exist:
# where a method prunes there, patches take what the budget allows and newlines the rest of it, from the first row on;
# below some 98 % that is none.
def with_room(visual: Visual, tokens: int, from_vit: int) -> Visual:
    """At most `tokens` rows, `from_vit` of which are ViT tokens and stay; then as many of the others as fit."""
    spare = visual.rows.n - max(tokens, from_vit)
    slots = visual.features.slots
    if spare <= 0 or slots is None:
        return visual
    blank = torch.nonzero(slots.source < 0).flatten()
    stays = torch.ones_like(slots.source, dtype=torch.bool).index_fill(0, blank[blank.shape[0] - spare :], False)
    keep = torch.nonzero(stays).flatten()
    shorter = select(visual, Selection(keep))
    pre_projector = visual.features.pre_projector[keep]
    slots = Slots(shorter.rows, slots.source[keep])
    return replace(shorter, features=replace(shorter.features, pre_projector=pre_projector, slots=slots))


def signal_of_slots(signal: Signal, values: Tensor, source: Tensor) -> Tensor:
    """A ViT signal over the rows of the state as one over the visual tokens, zeros where no ViT token stands behind."""
    return of_slots(values, source, 0 if signal.kind in ("queries", "keys") else values.ndim - 2)


def of_slots(values: Tensor, source: Tensor, dim: int = 0) -> Tensor:
    """values[source] along a dimension, zeros where source is -1."""
    gathered = values.index_select(dim, source.clamp_min(0))
    shape = [-1 if d == dim else 1 for d in range(values.ndim)]
    return gathered * (source >= 0).view(shape)
