"""The sites of one prompt: build the view, ask the pruner, check the selection, apply it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from harness.models.attention import Capture
from harness.models.clip import CLIP, Clip
from harness.models.clock import Clock
from harness.models.families.family import Family, Inputs
from harness.models.interface import Visual, at_interface, grouped, select, signal_of_slots, with_room
from harness.models.rows import as_patches, packed, with_cls_rows
from harness.models.sequence import Sequence
from harness.models.signals import packed_signal, signal_with_cls_rows
from harness.models.trace import PATCHES, Decision, Trace
from harness.models.vision_state import VisionState
from methods.base import (
    IN_VIT,
    INTERFACE,
    PRE_TOKENIZATION,
    VISUAL,
    InvalidSelection,
    MissingSignal,
    Plan,
    Pruner,
    Resize,
    Selection,
    Signal,
    Site,
    View,
    rows_of_unit,
    shows_cls_rows,
)


@dataclass
class Pass:
    """One prompt on its way through a model: at each planned site the pruner is asked and its answer applied."""

    family: Family
    pruner: Pruner | None
    prepared: Any
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    inputs: Inputs
    plan: Plan
    seed: int
    clock: Clock
    needs: tuple[Signal, ...]
    captures: dict[int, list[Capture]]
    trace: Trace
    positions: str | Tensor = "original"
    clip: Clip | None = None
    _vit_signals: dict[Signal, Tensor] = field(default_factory=dict)

    @property
    def policy(self) -> str:
        """Positions where a selection gives none: the method's policy, which speaks of 1-d RoPE only."""
        return self.pruner.positions if self.pruner and self.family.rope == "1d" else "original"

    def vision(self) -> VisionState:
        family, keeps = self.family, self.plan.keeps
        with self.clock.stage("vit"):
            kept = self._before_tokenization()
            state = family.embed(self.inputs, kept)
            if any(site.hook == IN_VIT for site in keeps):
                state = self._with_extra_tokens(state)
                if self.pruner.granularity == "patch":
                    state = as_patches(state)
            for number in range(family.vit_layers):
                self.trace.vit_tokens.append(state.lengths)
                state = family.run_attention(number, state)
                self.trace.vit_attended.append(family.attention_lengths(number, state))
                state = self._between(Site(IN_VIT, number, "attention"), state)
                self.trace.vit_mlp_tokens.append(state.lengths)
                state = family.run_mlp(number, state)
                state = self._between(Site(IN_VIT, number), state)
            state = state.in_order()
            return self._packed(state) if state.packs > 1 else state

    def _between(self, site: Site, state: VisionState) -> VisionState:
        """The state behind a place in the ViT: signals are read where attention has just run, then the pruner acts."""
        wanted = self._vit_needs(site.layer) if site.after == "attention" else []
        if not wanted and site not in self.plan.keeps:
            return state
        with self.clock.stage("select"):
            self._read_vit_signals(wanted, site.layer, state)
            return self._in_vit(site, state) if site in self.plan.keeps else state

    def _packed(self, state: VisionState) -> VisionState:
        with self.clock.stage("select"):
            self.trace.kept[PATCHES] = (state.image, state.unit)
            self.trace.decisions.append((PATCHES, Decision(state.image, state.unit, None, state.packs)))
            self._vit_signals = {
                need: packed_signal(need, values, state.packs) for need, values in self._vit_signals.items()
            }
            return packed(state)

    def _before_tokenization(self) -> Tensor | None:
        site = Site(PRE_TOKENIZATION)
        if site not in self.plan.keeps:
            return None
        with self.clock.stage("select"):
            geometry = self.inputs.geometry
            unit, image = geometry["unit"], geometry["image"]
            pixels = self.family.unit_pixels(self.inputs, self.pixel_mean, self.pixel_std)
            view = self._view(site, pixels, image, unit, torch.full_like(unit, VISUAL), torch.ones_like(unit).float())
            decision = self.pruner.before_tokenization(view)
            if isinstance(decision, tuple):
                return self._resize(decision, view)
            selection = self._decided(decision, view)
            if selection is None:
                return None
            keep = grouped(selection, image, view.images).keep
            self.trace.kept[site.label] = (image[keep], unit[keep])
            self.trace.decisions.append((site.label, Decision(image, unit, Selection(keep))))
            return keep

    def _resize(self, sizes: tuple[Resize, ...], view: View) -> None:
        """Go on with smaller images: from here on the prompt, its units and the record are theirs."""
        if len(sizes) != view.images:
            raise InvalidSelection(f"the sample has {view.images} images, the method gives sizes for {len(sizes)}")
        grids = tuple((size.height, size.width) for size in sizes)
        alive = sum(rows * columns for rows, columns in grids)
        if view.keep is not None and alive > view.keep:
            raise InvalidSelection(f"the plan asks for at most {view.keep} units, images of {grids} have {alive}")
        self._note(view, alive)
        self.inputs = self.family.resized(self.inputs, grids, self.pixel_mean, self.pixel_std)
        self.trace.shape = self.inputs.shape

    def _with_extra_tokens(self, state: VisionState) -> VisionState:
        with self.clock.stage("select"):
            question = self._question()
            _, units, _ = state.split(state.hidden)
            per_image = units.split([segment.units for segment in state.segments])
            extras = [self.pruner.extra_vit_tokens(question, rows.flatten(0, 1), self.prepared) for rows in per_image]
            self.trace.spend(len(extras) * self.pruner.extra_vit_flops(question.shape[0], self.family.info))
            return state if extras[0] is None else state.with_extra(extras)

    def _question(self) -> Tensor:
        return self.family.model.get_input_embeddings()(self.inputs.question_ids)

    def _by_clip(self, need: Signal) -> Tensor:
        """Embeddings of the question, or of all units of the prompt as they came from the processor."""
        if self.clip is None:
            raise MissingSignal(
                "no CLIP model is open: set clip_folder to a local folder that holds one, and give harness.prune the "
                "processor, which reads the question"
            )
        if need.kind == "text":
            return self.clip.segments(self.inputs.question_ids, self.trace.spend)
        units = self.family.unit_pixels(self.inputs, self.pixel_mean, self.pixel_std)
        if self.inputs.shape.tiles:
            raise MissingSignal("a CLIP model is not shown the tiles of an image; use relevance=question")
        images = zip(units.split(self.inputs.shape.images), self.inputs.shape.grids, strict=True)
        return torch.cat([self.clip.patches(rows, grid, self.trace.spend) for rows, grid in images])

    def _vit_needs(self, layer: int) -> list[Signal]:
        return [need for need in self.needs if need.tower == "vit" and need.layer == layer and need.kind != "features"]

    def _read_vit_signals(self, wanted: list[Signal], number: int, state: VisionState) -> None:
        if not wanted:
            return
        captures = self.captures[id(self.family.vision_attention(number))]
        counted = [replace(capture, spend=self.trace.spend) for capture in captures]
        for need in wanted:
            self._vit_signals[need] = self.family.vision_signal(need, state, counted)
        captures.clear()

    def _in_vit(self, site: Site, state: VisionState) -> VisionState:
        state = state.in_order()
        hidden, image, unit, kind, size = state.rows()
        view = self._view(site, hidden, image, unit, kind, size, self._vit_signals)
        selection = self.pruner.in_vit(view)
        if selection is None:
            return state
        tile, tiles = state.tile, len(state.segments)
        selection = grouped(selection, tile, tiles)
        kept = [selection.keep.shape[0]]
        if tiles > 1:
            kept = torch.bincount(tile[selection.keep], minlength=tiles).tolist()
        smaller = state.select(selection, kept)
        gathered = sum(segment.aggregate for segment in smaller.segments)
        self._decided(selection, view, gathered)
        self.trace.spend(2 * gathered * hidden.numel())
        self._vit_signals.clear()  # they speak of rows that may be gone
        self.trace.kept[site.label] = (smaller.image, smaller.unit // smaller.packs)
        self.trace.decisions.append((site.label, Decision(image, unit, selection, smaller.packs)))
        return smaller

    def interface(self, state: VisionState) -> Visual:
        shows_cls = shows_cls_rows(self.pruner, self.plan, self.inputs.shape)
        if shows_cls:
            self._vit_signals = {
                need: signal_with_cls_rows(need, values, state.segments) for need, values in self._vit_signals.items()
            }
            state = with_cls_rows(state)
        with self.clock.stage("projector"):
            visual = at_interface(state, self.family.project(state))
            self.trace.merged_units = sum(segment.units + segment.aggregate for segment in state.segments)
            if visual.features.slots is not None:
                visual = self._in_slots(visual)
        site = Site(INTERFACE)
        if site not in self.plan.keeps:
            return visual
        with self.clock.stage("select"):
            rows, tokens = visual.rows, visual.features.tokens
            signals = dict(self._vit_signals)
            for need in self.needs:
                if need.kind == "features":
                    signals[need] = visual.features.pre_projector
                elif need.kind == "question":
                    signals[need] = self._question()
                elif need.tower == CLIP:
                    signals[need] = self._by_clip(need)
            view = self._view(site, tokens, rows.image, rows.unit, rows.kind, rows.size, signals)
            selection = self.pruner.at_interface(view)
            if selection is None and shows_cls:
                selection = Selection(torch.nonzero(rows.kind == VISUAL).flatten())
            if selection is None:
                return visual
            selection = grouped(selection, rows.image, view.images)
            shorter = select(visual, selection)
            gathered = shorter.rows.n - selection.keep.shape[0]
            self._decided(selection, view, gathered)
            self.trace.spend(2 * gathered * tokens.numel() * (1 + len(visual.features.deepstack)))
            self.positions = self.policy if selection.positions is None else selection.positions
            self.trace.kept[site.label] = (shorter.rows.image, shorter.rows.unit)
            self.trace.decisions.append((site.label, Decision(rows.image, rows.unit, selection)))
            return shorter

    def _in_slots(self, visual: Visual) -> Visual:
        """Rows of the prompt where some are no ViT tokens: those that the plan leaves room for, and their signals."""
        before = {site: keep for site, keep in self.plan.keeps.items() if site.hook in (PRE_TOKENIZATION, IN_VIT)}
        if before:
            whole = self.trace.merged_units == self.inputs.shape.in_vit.n
            asked = [keep for keep in before.values() if keep is not None]
            visual = with_room(visual, min(asked, default=visual.rows.n if whole else 0), self.trace.merged_units)
        source = visual.features.slots.source
        self._vit_signals = {need: signal_of_slots(need, values, source) for need, values in self._vit_signals.items()}
        return visual

    def decide_in_llm(
        self, site: Site, hidden: Tensor, sequence: Sequence, signals: dict[Signal, Tensor]
    ) -> Selection | None:
        rows = sequence.rows
        if any(need.kind == "question" for need in self.needs):
            signals = {**signals, **{n: self._question() for n in self.needs if n.kind == "question"}}
        view = self._view(site, hidden, rows.image, rows.unit, rows.kind, rows.size, signals)
        selection = self._decided(self.pruner.in_llm(view), view)
        if selection is None:
            return None
        selection = grouped(selection, rows.image, view.images)
        self.trace.kept[site.label] = (rows.image[selection.keep], rows.unit[selection.keep])
        self.trace.decisions.append((site.label, Decision(rows.image, rows.unit, selection)))
        return selection

    def _view(
        self,
        site: Site,
        hidden: Tensor,
        image: Tensor,
        unit: Tensor,
        kind: Tensor,
        size: Tensor,
        signals: dict[Signal, Tensor] | None = None,
    ) -> View:
        ordinal = list(self.plan.keeps).index(site)
        keep, shape = self.plan.keeps[site], self.inputs.shape
        if site.hook in (PRE_TOKENIZATION, IN_VIT):
            shape = shape.in_vit
            keep = keep if keep is None else min(keep, shape.n)
        return View(
            site=site,
            hidden=hidden,
            keep=keep if keep is None else keep * rows_of_unit(site, self.pruner, shape),
            image=image,
            unit=unit,
            kind=kind,
            size=size,
            shape=shape,
            seed=(self.seed * 1_000_003 + ordinal) % (1 << 62),
            rope=self.family.rope,
            signals=signals or {},
            prepared=self.prepared,
        )

    def _decided(self, selection: Selection | None, view: View, aggregates: int = 0) -> Selection | None:
        """Check a decision against the plan and note it."""
        if selection is None:
            return None
        selection.validate(view.n, view.keep, aggregates)
        self._note(view, selection.keep.shape[0])
        return selection

    def _note(self, view: View, k: int) -> None:
        """Note a decision that leaves k rows, and what the method says it cost."""
        width = view.hidden.shape[-1]
        if view.site.hook == PRE_TOKENIZATION:
            width = view.hidden[0].numel()  # all colours of all pixels of a unit
        self.trace.sites.append((view.site.label, view.n, k, width))
        self.trace.spend(self.pruner.selection_flops(view.site, view.n, k, width, view.shape))
