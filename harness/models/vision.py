"""The ViT tower of one pass: pixels are chosen before they become tokens, units between its half blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.models.deciding import Pass, grouped
from harness.models.families.family import Inputs
from harness.models.rows import as_patches, packed
from harness.models.signals import packed_signal
from harness.models.sites import attention_signals, site_before
from harness.models.trace import Decision
from harness.models.vision_state import VisionState
from harness.records.records import PATCHES
from methods.base import IN_VIT, VISUAL, InvalidSelection, Resize, Selection, Signal, Site, View

Signals = Mapping[Signal, Tensor]


@dataclass(frozen=True)
class Seen:
    """The prompt behind the ViT. inputs: the prompt of the images that were seen, smaller ones where a method resized
    them. signals: those of the ViT that still speak of the rows of `state`."""

    inputs: Inputs
    state: VisionState
    signals: Signals


def through_vit(run: Pass, inputs: Inputs) -> Seen:
    """Embed the units that the pruner leaves and run all blocks on a set of units that shrinks at the plan's sites."""
    with run.clock.stage("vit"):
        inputs, kept = _before_tokenization(run, inputs)
        state = _opened(run, inputs, run.family.embed(inputs, kept))
        signals: Signals = {}
        for half in range(2 * run.family.vit_layers):
            state = _half_block(run, half, state)
            state, signals = _behind(run, inputs, site_before(half + 1), state, signals)
        return _closed(run, Seen(inputs, state.in_order(), signals))


def _half_block(run: Pass, half: int, state: VisionState) -> VisionState:
    """The state after the attention (even) or the MLP (odd) of block half // 2, the tokens that ran in it noted."""
    number, trace = half // 2, run.trace
    if half % 2:
        trace.vit_mlp_tokens.append(state.lengths)
        return run.family.run_mlp(number, state)
    trace.vit_tokens.append(state.lengths)
    state = run.family.run_attention(number, state)
    # Only now: a windowed tower says which tokens attended to one another when it has laid them out for this block.
    trace.vit_attended.append(run.family.attention_lengths(number, state))
    return state


def _before_tokenization(run: Pass, inputs: Inputs) -> tuple[Inputs, Tensor | None]:
    """The prompt and the units (k,) of it whose pixels are embedded, None for all."""
    site = site_before(0)
    if not run.acts_at(site):
        return inputs, None
    with run.clock.stage("select"):
        unit, image = inputs.geometry["unit"], inputs.geometry["image"]
        pixels = run.family.unit_pixels(inputs, run.pixel_mean, run.pixel_std)
        rows = (image, unit, torch.full_like(unit, VISUAL), torch.ones_like(unit).float())
        view = run.view(site, inputs, pixels, rows, {})
        answer = run.ask(view)
        if isinstance(answer, tuple):
            return _resized(run, inputs, view, answer), None
        if answer is None:
            return inputs, None
        run.checked(view, answer)
        keep = grouped(answer, image, view.images).keep
        # Pixels are chosen and never mixed: whatever else the selection says has no meaning here.
        run.note(view, Selection(keep), image[keep], unit[keep])
        return inputs, keep


def _resized(run: Pass, inputs: Inputs, view: View, sizes: tuple[Resize, ...]) -> Inputs:
    """The prompt with smaller images: from here on its placeholders, its units and the record are theirs."""
    if len(sizes) != view.images:
        raise InvalidSelection(f"the sample has {view.images} images, the method gives sizes for {len(sizes)}")
    grids = tuple((size.height, size.width) for size in sizes)
    alive = sum(rows * columns for rows, columns in grids)
    # At most: a grid of whole units cannot have any number of them, so that fewer than asked are allowed.
    if view.keep is not None and alive > view.keep:
        raise InvalidSelection(f"the plan asks for at most {view.keep} units, images of {grids} have {alive}")
    run.count(view, alive)
    smaller = run.family.resized(inputs, grids, run.pixel_mean, run.pixel_std)
    run.trace.shape = smaller.shape
    return smaller


def _opened(run: Pass, inputs: Inputs, state: VisionState) -> VisionState:
    """The embedded state as a method with in-ViT sites wants it: its extra tokens in front, its granularity of rows."""
    if not run.plan.layers_of(IN_VIT):
        return state
    state = _with_extra_tokens(run, inputs, state)
    return as_patches(state) if run.pruner.granularity == "patch" else state


def _with_extra_tokens(run: Pass, inputs: Inputs, state: VisionState) -> VisionState:
    with run.clock.stage("select"):
        question = run.question(inputs)
        _, units, _ = state.split(state.hidden)
        per_image = units.split([segment.units for segment in state.segments])
        extras = [run.pruner.extra_vit_tokens(question, rows.flatten(0, 1), run.prepared) for rows in per_image]
        run.trace.spend(len(extras) * run.pruner.extra_vit_flops(question.shape[0], run.family.info))
        return state if extras[0] is None else state.with_extra(extras)


def _behind(run: Pass, inputs: Inputs, site: Site, state: VisionState, signals: Signals) -> tuple[VisionState, Signals]:
    """State and signals behind a place in the ViT: read where attention has just run, then cut where the plan says."""
    # Read at once, over exactly the rows that attended: behind the MLP some of them may be gone.
    wanted = [need for need in attention_signals(run.needs, "vit") if Site(IN_VIT, need.layer, "attention") == site]
    if not wanted and not run.acts_at(site):
        return state, signals
    with run.clock.stage("select"):
        if wanted:
            signals = {**signals, **_read(run, wanted, site.layer, state)}
        return _cut(run, inputs, site, state, signals) if run.acts_at(site) else (state, signals)


def _read(run: Pass, wanted: list[Signal], number: int, state: VisionState) -> dict[Signal, Tensor]:
    captures = run.captures[id(run.family.vision_attention(number))]
    counted = [replace(capture, spend=run.trace.spend) for capture in captures]
    values = {need: run.family.vision_signal(need, state, counted) for need in wanted}
    captures.clear()  # queries and keys of all tokens are large, and nobody reads them again
    return values


def _cut(run: Pass, inputs: Inputs, site: Site, state: VisionState, signals: Signals) -> tuple[VisionState, Signals]:
    """The survivors of the pruner's selection; no signals then, since they speak of rows that may be gone."""
    state = state.in_order()
    hidden, *rows = state.rows()
    view = run.view(site, inputs, hidden, tuple(rows), signals)
    selection = run.ask(view)
    if selection is None:
        return state, signals
    # The state is packed tile by tile where images have several, and no unit changes its tile: rows are brought
    # together by tile, though the pruner sees images.
    tile, tiles = state.tile, len(state.segments)
    selection = grouped(selection, tile, tiles)
    kept = [selection.keep.shape[0]]  # one segment needs no wait for the device
    if tiles > 1:
        kept = torch.bincount(tile[selection.keep], minlength=tiles).tolist()
    smaller = state.select(selection, kept)
    # Counted behind the cut, since an image that loses nothing gets no aggregate. A running one is a row of the view
    # like any other: what the new one replaces is folded into it.
    gathered = sum(segment.aggregate for segment in smaller.segments)
    run.checked(view, selection, gathered, hidden.numel())
    run.note(view, selection, smaller.image, smaller.unit // smaller.packs, smaller.packs)
    return smaller, {}


def _closed(run: Pass, seen: Seen) -> Seen:
    """Rows of units again, where they were single patches: the merger takes whole units.

    Survivors are packed in the order in which they stand, whichever units they came from; the masks over patches and
    the signals follow, so that the interface sees units as it does for every method.
    """
    state = seen.state
    if state.packs == 1:
        return seen
    with run.clock.stage("select"):
        run.trace.kept[PATCHES] = (state.image, state.unit)
        run.trace.decisions.append((PATCHES, Decision(state.image, state.unit, None, state.packs)))
        signals = {need: packed_signal(need, values, state.packs) for need, values in seen.signals.items()}
        return Seen(seen.inputs, packed(state), signals)
