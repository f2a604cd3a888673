"""Visual tokens between projector and LLM: the rows, their features, what the pruner's selection does to both."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.models.clip import CLIP, clip_signal
from harness.models.deciding import Pass, by_image, grouped
from harness.models.families.family import Features, Inputs, Slots
from harness.models.prompt import VisualRows
from harness.models.rows import with_cls_rows
from harness.models.signals import signal_with_cls_rows
from harness.models.sites import HOOK_POINTS, cls_rows
from harness.models.vision import Seen, Signals
from harness.models.vision_state import VisionState
from methods.base import AGGREGATE, INTERFACE, VISUAL, Signal, Site
from methods.selection import Selection, aggregate, reduce, reduce_sizes


@dataclass(frozen=True)
class Visual:
    """Rows in prompt order (aggregates last in their image) and the features that belong to them."""

    rows: VisualRows
    features: Features


@dataclass(frozen=True)
class Entering:
    """What enters the LLM. inputs: the prompt that was seen, at its full length; positions: of the visual tokens, as
    `harness.models.prompt.shorten` takes them."""

    inputs: Inputs
    visual: Visual
    positions: str | Tensor = "original"


def through_interface(run: Pass, seen: Seen) -> Entering:
    """Project what the ViT left, and keep of it what the pruner selects."""
    shows_cls = bool(cls_rows(run.pruner, run.plan, seen.inputs.shape))
    visual, signals = _projected(run, _with_cls(seen) if shows_cls else seen)
    site = Site(INTERFACE)
    if not run.acts_at(site):
        return Entering(seen.inputs, visual)
    with run.clock.stage("select"):
        rows, tokens = visual.rows, visual.features.tokens
        signals = {**signals, **_signals_here(run, seen, visual)}
        view = run.view(site, seen.inputs, tokens, (rows.image, rows.unit, rows.kind, rows.size), signals)
        selection = run.ask(view)
        if selection is None and shows_cls:
            # A CLS token that nobody asked to keep goes, as it does without the pruner.
            selection = Selection(torch.nonzero(rows.kind == VISUAL).flatten())
        if selection is None:
            return Entering(seen.inputs, visual)
        selection = grouped(selection, rows.image, view.images)
        shorter = select(visual, selection)
        gathered = shorter.rows.n - selection.keep.shape[0]
        run.checked(view, selection, gathered, tokens.numel() * (1 + len(visual.features.deepstack)))
        run.note(view, selection, shorter.rows.image, shorter.rows.unit)
        positions = run.policy if selection.positions is None else selection.positions
        return Entering(seen.inputs, shorter, positions)


def _with_cls(seen: Seen) -> Seen:
    """The ViT's state with its CLS tokens as rows, which pass the projector too; its signals have zeros for them."""
    segments = seen.state.segments
    signals = {need: signal_with_cls_rows(need, values, segments) for need, values in seen.signals.items()}
    return Seen(seen.inputs, with_cls_rows(seen.state), signals)


def _projected(run: Pass, seen: Seen) -> tuple[Visual, Signals]:
    """Visual tokens in the order of the prompt, and the ViT's signals over them."""
    with run.clock.stage("projector"):
        visual = at_interface(seen.state, run.family.project(seen.state))
        # An aggregate passes the projector as a unit of its own.
        units = sum(segment.units + segment.aggregate for segment in seen.state.segments)
        run.trace.merged_units = units
        return (visual, seen.signals) if visual.features.slots is None else _in_slots(run, seen, visual, units)


def _in_slots(run: Pass, seen: Seen, visual: Visual, units: int) -> tuple[Visual, Signals]:
    """Rows and signals where some visual tokens (newlines) are no ViT tokens: as many as the plan leaves room for.

    A plan counts all visual tokens, and a cut in front of the projector sees ViT units alone. What it keeps is the
    prompt's length behind it, so newlines fill what the units leave of it, and the last ones go first. Where the
    method decides the number (native), newlines stay with a whole picture and go with a cut one.
    """
    before = [keep for site, keep in run.plan.keeps.items() if HOOK_POINTS[site.hook].in_vit]
    if before:
        whole = units == seen.inputs.shape.in_vit.n
        asked = [keep for keep in before if keep is not None]
        visual = with_room(visual, min(asked, default=visual.rows.n if whole else 0), units)
    source = visual.features.slots.source
    return visual, {need: signal_of_slots(need, values, source) for need, values in seen.signals.items()}


def _signals_here(run: Pass, seen: Seen, visual: Visual) -> dict[Signal, Tensor]:
    """The signals that no layer's attention gives."""
    found: dict[Signal, Tensor] = {}
    for need in run.needs:
        if need.kind == "features":
            found[need] = visual.features.pre_projector
        elif need.kind == "question":
            found[need] = run.question(seen.inputs)
        elif need.tower == CLIP:
            found[need] = clip_signal(run, need, seen.inputs)
    return found


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
    # aggregates are appended, and the order by image is stable: each comes last in its image
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
    # ViT tokens are what the method kept, and stay; newlines came with the layout, so the last of them make room
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
