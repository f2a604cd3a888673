"""One prompt through one model under one pruner: pixels -> ViT -> projector -> shortened prompt -> LLM.

The unpruned model takes the same path with an empty plan. The pruner sees views and answers with selections; it never
meets a module. Everything between pixels on the device and the first token is attributed to a stage of the clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.models.attention import TAP, Capture
from harness.models.family import Family, Inputs
from harness.models.interface import Visual, at_interface, grouped, select
from harness.models.llm import Sequence, Surgery, selected_layers
from harness.models.prompt import Prompt, shorten
from harness.models.vision import VisionState
from harness.records import Realised
from methods.base import (
    IN_VIT,
    INTERFACE,
    PRE_TOKENIZATION,
    VISUAL,
    Budget,
    Plan,
    Pruner,
    Selection,
    Shape,
    Signal,
    Site,
    View,
)


class Clock(Protocol):
    """What the engine needs of a clock: nested stages, exclusive time."""

    def stage(self, name: str) -> AbstractContextManager[None]: ...


class Untimed:
    """A clock that measures nothing."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()


@dataclass
class Trace:
    """What ran, as tensors and host integers; `realised` reads the tensors, so ask outside timed regions."""

    shape: Shape
    text_tokens: int
    vit_tokens: list[tuple[int, ...]] = field(default_factory=list)
    merged_units: int = 0
    sites: list[tuple[str, int, int, int]] = field(default_factory=list)
    selection_flops: int = 0
    kept: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # label -> image, unit
    entering: list[int] = field(default_factory=list)

    @cached_property
    def realised(self) -> Realised:
        return Realised(
            vit_tokens=tuple(self.vit_tokens),
            merged_units=self.merged_units,
            entering=tuple(self.entering),
            text_tokens=self.text_tokens,
            sites=tuple(self.sites),
            selection_flops=self.selection_flops,
            kept={label: self._mask(*rows) for label, rows in self.kept.items()},
        )

    def _mask(self, image: Tensor, unit: Tensor) -> str:
        starts = [sum(self.shape.images[:index]) for index in range(len(self.shape.images))]
        bits = 0
        for where, which in zip(image.tolist(), unit.tolist(), strict=True):
            if which >= 0:
                bits |= 1 << (starts[where] + which)
        return format(bits, "x")


@dataclass(frozen=True)
class Encoded:
    """A prompt ready for the LLM: native keyword arguments, and the hooks to hold while they run."""

    prompt: Prompt
    arguments: dict[str, Any]
    surgery: Surgery
    trace: Trace


@dataclass(frozen=True)
class Prefill:
    """logits (1, t, vocabulary) of the last t tokens; token: 0-d id of the first new token, on the device."""

    logits: Tensor
    token: Tensor
    trace: Trace

    @property
    def realised(self) -> Realised:
        return self.trace.realised


def label_of(site: Site) -> str:
    """A site in words: "interface", "in-llm:2"."""
    return site.hook if site.hook in (INTERFACE, PRE_TOKENIZATION) else f"{site.hook}:{site.layer}"


class Engine:
    """Runs prompts of one model under one pruner (None: unpruned). Stateless between prompts."""

    def __init__(
        self,
        family: Family,
        pruner: Pruner | None,
        adapter: dict[str, Tensor] | None = None,
        pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5),
        pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5),
    ):
        self.family = family
        self.pruner = pruner
        self.pixel_mean, self.pixel_std = pixel_mean, pixel_std
        self.prepared = pruner.prepare(replace(family.info(), adapter=adapter)) if pruner else None

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        """The pruner's plan; a budget of all tokens bypasses the method. Raises BudgetInfeasible."""
        everything = Plan({}, (shape.n,) * shape.llm_layers)
        if self.pruner is None or (budget.kind != "native" and budget.tokens >= shape.n):
            return everything
        return self.pruner.plan(budget, shape)

    @torch.no_grad()
    def prefill(
        self, inputs: Inputs, plan: Plan, seed: int = 0, clock: Clock | None = None, logits_to_keep: int = 1
    ) -> Prefill:
        """The first new token (greedy) and how it was reached. logits_to_keep 0 = all."""
        clock = clock or Untimed()
        with self.encoded(inputs, plan, seed, clock) as encoded, clock.stage("llm_prefill"):
            out = self.family.model(**encoded.arguments, use_cache=True, logits_to_keep=logits_to_keep)
            token = out.logits[0, -1].argmax()
        return Prefill(out.logits, token, encoded.trace)

    @torch.no_grad()
    def generate(self, inputs: Inputs, plan: Plan, seed: int = 0, **arguments: Any) -> tuple[Any, Trace]:
        """Native `generate` on the shortened prompt; returns its output (short ids + new tokens) and the trace."""
        with self.encoded(inputs, plan, seed, Untimed()) as encoded:
            model = self.family.model  # a `prune` block may stand on the instance: the class has the native method
            out = type(model).generate(model, **{**arguments, **encoded.arguments})
        return out, encoded.trace

    @contextmanager
    def encoded(self, inputs: Inputs, plan: Plan, seed: int, clock: Clock) -> Iterator[Encoded]:
        """The shortened prompt; inside the block the in-LLM hooks are on the model, afterwards they are gone."""
        needs = self.pruner.needs(inputs.shape) if self.pruner and plan.keeps else ()
        sites = selected_layers(plan.keeps)
        vit_layers = sorted({need.layer for need in needs if need.tower == "vit" and need.kind != "features"})
        llm_layers = sorted({need.layer for need in needs if need.tower == "llm" and need.kind != "question"})
        vit_modules = [self.family.vision_attention(layer) for layer in vit_layers]
        llm_modules = [self.family.decoder.layers[layer].self_attn for layer in llm_layers]
        trace = Trace(inputs.shape, inputs.text_tokens)
        with ExitStack() as stack:
            seen = stack.enter_context(TAP.watching([*vit_modules, *llm_modules], self.family.kernels))
            run = _Run(self, inputs, plan, seed, clock, needs, seen, trace)
            visual = run.interface(run.vision())
            policy = self._policy()
            prompt = shorten(inputs.prompt, visual.rows, run.positions)
            surgery = Surgery(
                decoder=self.family.decoder,
                sites=sites,
                signals=tuple(needs),
                decide=run.decide_in_llm,
                policy=policy,
                start=visual.rows,
                spans=prompt.spans,
                captures=seen,
                entering=trace.entering,
            )
            stack.enter_context(surgery.installed())
            stack.enter_context(self._deepstack(surgery))
            arguments = self.family.forward_arguments(prompt, visual.features, visual.rows.counts)
            yield Encoded(prompt, arguments, surgery, trace)

    def _policy(self) -> str:
        """Positions where a selection gives none: the method's policy, which speaks of 1-d RoPE only."""
        return self.pruner.positions if self.pruner and self.family.rope == "1d" else "original"

    @contextmanager
    def _deepstack(self, surgery: Surgery) -> Iterator[None]:
        """DeepStack adds features to the visual tokens of the first layers: of those that are still alive."""
        found = self.family.deepstack_hook()
        if found is None or not surgery.sites:
            yield
            return
        module, name = found
        native = getattr(module, name)

        def add(hidden: Tensor, mask: Tensor, features: Tensor) -> Tensor:
            if not surgery.history:
                return native(hidden, mask, features)
            batch = hidden.shape[0]
            alive = torch.cat([surgery.reduce_features(one) for one in features.unflatten(0, (batch, -1))])
            return native(hidden, surgery.visual_mask.expand(batch, -1), alive)

        setattr(module, name, add)
        try:
            yield
        finally:
            delattr(module, name)


@dataclass
class _Run:
    """The vision side of one prompt."""

    engine: Engine
    inputs: Inputs
    plan: Plan
    seed: int
    clock: Clock
    needs: tuple[Signal, ...]
    captures: dict[int, list[Capture]]
    trace: Trace
    positions: str | Tensor = "original"
    _vit_signals: dict[Signal, Tensor] = field(default_factory=dict)

    @property
    def family(self) -> Family:
        return self.engine.family

    def vision(self) -> VisionState:
        family, keeps = self.family, self.plan.keeps
        with self.clock.stage("vit"):
            state = family.embed(self.inputs, self._before_tokenization())
            if any(site.hook == IN_VIT for site in keeps):
                state = self._with_extra_tokens(state)
            for number in range(family.vit_layers):
                self.trace.vit_tokens.append(state.lengths)
                state = family.run_block(number, state)
                site = Site(IN_VIT, number)
                with self.clock.stage("select"):
                    self._read_vit_signals(number, state)
                    if site in keeps:
                        state = self._in_vit(site, state)
        return state

    def _before_tokenization(self) -> Tensor | None:
        site = Site(PRE_TOKENIZATION)
        if site not in self.plan.keeps:
            return None
        with self.clock.stage("select"):
            geometry = self.inputs.geometry
            unit, image = geometry["unit"], geometry["image"]
            pixels = self.family.unit_pixels(self.inputs, self.engine.pixel_mean, self.engine.pixel_std)
            view = self._view(site, pixels, image, unit, torch.full_like(unit, VISUAL), torch.ones_like(unit).float())
            selection = self._decided(self.engine.pruner.before_tokenization(view), view)
            if selection is None:
                return None
            keep = grouped(selection, image, view.images).keep
            self.trace.kept[label_of(site)] = (image[keep], unit[keep])
            return keep

    def _with_extra_tokens(self, state: VisionState) -> VisionState:
        with self.clock.stage("select"):
            question = self._question()
            _, units, _ = state.split(state.hidden)
            per_image = units.split([segment.units for segment in state.segments])
            pruner = self.engine.pruner
            extras = [pruner.extra_vit_tokens(question, rows.flatten(0, 1), self.engine.prepared) for rows in per_image]
            return state if extras[0] is None else state.with_extra(extras)

    def _question(self) -> Tensor:
        return self.family.model.get_input_embeddings()(self.inputs.question_ids)

    def _read_vit_signals(self, number: int, state: VisionState) -> None:
        wanted = [
            need for need in self.needs if need.tower == "vit" and need.layer == number and need.kind != "features"
        ]
        if not wanted:
            return
        captures = self.captures[id(self.family.vision_attention(number))]
        for need in wanted:
            self._vit_signals[need] = self.family.vision_signal(need, state, captures)
        captures.clear()

    def _in_vit(self, site: Site, state: VisionState) -> VisionState:
        hidden, image, unit, kind, size = state.rows()
        view = self._view(site, hidden, image, unit, kind, size, self._vit_signals)
        images = view.images
        selection = self.engine.pruner.in_vit(view)
        if selection is None:
            return state
        selection = grouped(selection, image, images)
        kept = [selection.keep.shape[0]]
        if images > 1:
            kept = torch.bincount(image[selection.keep], minlength=images).tolist()
        smaller = state.select(selection, kept)
        self._decided(selection, view, aggregates=sum(segment.aggregate for segment in smaller.segments))
        self._vit_signals.clear()  # they speak of rows that may be gone
        self.trace.kept[label_of(site)] = (smaller.image, smaller.unit)
        return smaller

    def interface(self, state: VisionState) -> Visual:
        with self.clock.stage("projector"):
            visual = at_interface(state, self.family.project(state))
            self.trace.merged_units = visual.rows.n
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
            view = self._view(site, tokens, rows.image, rows.unit, rows.kind, rows.size, signals)
            selection = self.engine.pruner.at_interface(view)
            if selection is None:
                return visual
            selection = grouped(selection, rows.image, view.images)
            shorter = select(visual, selection)
            self._decided(selection, view, aggregates=shorter.rows.n - selection.keep.shape[0])
            self.positions = self.engine._policy() if selection.positions is None else selection.positions
            self.trace.kept[label_of(site)] = (shorter.rows.image, shorter.rows.unit)
            return shorter

    def decide_in_llm(
        self, site: Site, hidden: Tensor, sequence: Sequence, signals: dict[Signal, Tensor]
    ) -> Selection | None:
        with self.clock.stage("select"):
            rows = sequence.rows
            if any(need.kind == "question" for need in self.needs):
                signals = {**signals, **{n: self._question() for n in self.needs if n.kind == "question"}}
            view = self._view(site, hidden, rows.image, rows.unit, rows.kind, rows.size, signals)
            selection = self._decided(self.engine.pruner.in_llm(view), view)
            if selection is None:
                return None
            selection = grouped(selection, rows.image, view.images)
            self.trace.kept[label_of(site)] = (rows.image[selection.keep], rows.unit[selection.keep])
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
        return View(
            site=site,
            hidden=hidden,
            keep=self.plan.keeps[site],
            image=image,
            unit=unit,
            kind=kind,
            size=size,
            shape=self.inputs.shape,
            seed=(self.seed * 1_000_003 + ordinal) % (1 << 62),
            rope=self.family.rope,
            signals=signals or {},
            prepared=self.engine.prepared,
        )

    def _decided(self, selection: Selection | None, view: View, aggregates: int = 0) -> Selection | None:
        """Check a decision against the plan and note its cost."""
        if selection is None:
            return None
        selection.validate(view.n, view.keep, aggregates)
        k, width = selection.keep.shape[0], view.hidden.shape[-1]
        self.trace.sites.append((label_of(view.site), view.n, k, width))
        self.trace.selection_flops += self.engine.pruner.selection_flops(view.site, view.n, k, width)
        return selection
