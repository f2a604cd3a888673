"""One prompt through one model under one pruner: pixels -> ViT -> projector -> shortened prompt -> LLM.

The unpruned model takes the same path with an empty plan. The pruner sees views and answers with selections; it never
meets a module. Everything between pixels on the device and the first token is attributed to a stage of the clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.models.attention import TAP
from harness.models.batch_decoding import Prefilled, Together
from harness.models.clip import Clip
from harness.models.clock import Clock, Untimed
from harness.models.deciding import Pass
from harness.models.decoder import Surgery, selected_layers
from harness.models.families.family import Family, Inputs
from harness.models.interface import through_interface
from harness.models.prompt import Prompt, shorten
from harness.models.replacing import replaced
from harness.models.sequence import in_llm
from harness.models.sites import attention_signals
from harness.models.trace import Trace
from harness.models.vision import through_vit
from harness.records.records import Realised
from methods.base import Budget, Plan, Pruner, Shape


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


def plan_of(pruner: Pruner | None, budget: Budget, shape: Shape) -> Plan:
    """The pruner's plan; a budget of all tokens bypasses the method. Raises BudgetInfeasible."""
    if pruner is None or (budget.kind != "native" and budget.tokens >= shape.n):
        return Plan({}, (shape.n,) * shape.llm_layers)
    return pruner.plan(budget, shape)


class Engine:
    """Runs prompts of one model under one pruner (None: unpruned). Stateless between prompts."""

    def __init__(
        self,
        family: Family,
        pruner: Pruner | None,
        adapter: dict[str, Tensor] | None = None,
        pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5),
        pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5),
        clip: Clip | None = None,
    ):
        self.family = family
        self.pruner = pruner
        self.pixel_mean, self.pixel_std, self.clip = pixel_mean, pixel_std, clip
        self.prepared = pruner.prepare(replace(family.info, adapter=adapter)) if pruner else None

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        """The pruner's plan; a budget of all tokens bypasses the method. Raises BudgetInfeasible."""
        return plan_of(self.pruner, budget, shape)

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

    def together(
        self, prompts: Sequence[Inputs], plans: Sequence[Plan], seed: int = 0, logits_to_keep: int = 1
    ) -> Together:
        """Prompts of a batch behind their prefills, each pruned as if it were alone; `Together.generate` goes on."""
        rows = [
            self._prefilled(inputs, plan, seed, logits_to_keep) for inputs, plan in zip(prompts, plans, strict=True)
        ]
        return Together(self.family.model, self.family.decoder, rows)

    def _prefilled(self, inputs: Inputs, plan: Plan, seed: int, logits_to_keep: int) -> Prefilled:
        with self.encoded(inputs, plan, seed, Untimed()) as encoded:
            out = self.family.model(**encoded.arguments, use_cache=True, logits_to_keep=logits_to_keep)
        given = {name: encoded.arguments[name] for name in ("input_ids", "attention_mask", "position_ids")}
        states = tuple((layer.keys, layer.values) for layer in out.past_key_values.layers)
        return Prefilled(given, out.logits, states, encoded.surgery, encoded.trace)

    @contextmanager
    def encoded(self, inputs: Inputs, plan: Plan, seed: int, clock: Clock) -> Iterator[Encoded]:
        """The shortened prompt; inside the block the in-LLM hooks are on the model, afterwards they are gone."""
        needs = self.pruner.needs(inputs.shape) if self.pruner and plan.keeps else ()
        sites = selected_layers(plan.keeps)
        vit_layers, llm_layers = (
            sorted({need.layer for need in attention_signals(needs, tower)}) for tower in ("vit", "llm")
        )
        vit_modules = [self.family.vision_attention(layer) for layer in vit_layers]
        llm_modules = [self.family.decoder.layers[layer].self_attn for layer in llm_layers]
        trace = Trace(inputs.shape, inputs.text_tokens)
        with ExitStack() as stack:
            seen = stack.enter_context(TAP.watching([*vit_modules, *llm_modules], self.family.kernels))
            run = Pass(
                self.family, self.pruner, self.prepared, self.pixel_mean, self.pixel_std, plan, seed, clock, needs,
                seen, trace, self.clip,
            )  # fmt: skip
            entering = through_interface(run, through_vit(run, inputs))
            visual = entering.visual
            prompt = shorten(entering.inputs.prompt, visual.rows, entering.positions)
            surgery = Surgery(
                decoder=self.family.decoder,
                sites=sites,
                signals=tuple(needs),
                decide=partial(in_llm, run, entering.inputs),
                policy=run.policy,
                start=visual.rows,
                spans=prompt.spans,
                spend=trace.spend,
                captures=seen,
                entering=trace.entering,
                clock=clock,
            )
            stack.enter_context(surgery.installed())
            stack.enter_context(self._deepstack(surgery))
            arguments = self.family.forward_arguments(prompt, visual.features, visual.rows.counts)
            yield Encoded(prompt, arguments, surgery, trace)

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

        with replaced(module, name, add):
            yield
