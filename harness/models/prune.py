"""A pruner in somebody's own code: `with harness.prune(model, "fastv", budget=0.5): model.generate(**inputs)`.

Inside the block `generate` and `forward` of this one model instance run pruned; afterwards the instance is as before.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithPast

import methods
from harness.budget.spec import BudgetSpec
from harness.models.batch_decoding import prompts_of
from harness.models.clock import Untimed
from harness.models.engine import Engine
from harness.models.families.family import Inputs
from harness.models.loading import build_engine, family_of
from harness.models.replacing import replaced
from harness.models.trace import Trace
from harness.records.records import Realised
from methods.base import Budget, Plan, Pruner

_VISION = ("pixel_values", "image_grid_thw", "image_sizes", "mm_token_type_ids", "pixel_values_videos")
_REFUSED = ("labels", "inputs_embeds", "past_key_values", "position_ids")


@dataclass
class Pruning:
    """The open block. `latest`: what the prompts of the latest call with images really ran, in their order."""

    engine: Engine
    budget: BudgetSpec
    seed: int
    latest: tuple[Trace, ...] = ()

    @property
    def realised(self) -> Realised | None:
        """Visual tokens per layer, kept units and so on of the latest prompt, of a batch the last; None before any."""
        return self.latest[-1].realised if self.latest else None

    @property
    def realised_of_rows(self) -> tuple[Realised, ...]:
        """The same of every prompt of the latest call."""
        return tuple(trace.realised for trace in self.latest)

    def plan(self, inputs: Inputs) -> Plan:
        if self.budget.kind == "native":
            return self.engine.plan(Budget("native", 0), inputs.shape)
        return self.engine.plan(Budget(self.budget.kind, self.budget.ask(inputs.shape.n)), inputs.shape)


@contextmanager
def prune(
    model: nn.Module,
    method: str | Pruner,
    budget: float | int | str = 0.5,
    *,
    seed: int = 0,
    processor: Any = None,
    **settings: Any,
) -> Iterator[Pruning]:
    """Prune every prompt with images that `model` sees inside the block.

    method: a name ("fastv", "quietprune:init"), a path, or a Pruner; settings override its defaults.
    budget: a float in (0, 1] is a ratio, an int is tokens, "50%", "interface_kept:64", "native" as on the command line.
    processor: only needed by methods that look at pixels, when the image normalisation is not mean 0.5, deviation 0.5,
    and by those that ask a CLIP model, which reads the question.

    `generate` returns the caller's full input_ids followed by the new tokens, so the usual slice works. `forward`
    returns the logits of the shortened prompt. A batch, padded on the left, is prefilled prompt by prompt and decoded
    together (harness/models/batch_decoding.py): its `forward` gives logits alone. Blocks nest: the inner one counts.
    Raises UsageError (family), BudgetError, UnknownMethod, BudgetInfeasible; ValueError for inputs it cannot take.
    """
    asked = BudgetSpec.parse(budget)
    if asked.kind == "flops_ratio":
        raise ValueError("a flops_ratio budget is solved by `harness run`; give tokens or a ratio of them here")
    pruner = method if isinstance(method, Pruner) else methods.build(method, **settings)
    pruning = Pruning(build_engine(family_of(model), pruner, processor), asked, seed)
    with replaced(model, "forward", _forward(model, pruning)), replaced(model, "generate", _generate(model, pruning)):
        yield pruning


def _prompts(pruning: Pruning, arguments: dict[str, Any]) -> tuple[list[Inputs], dict[str, Any]]:
    """The prompts, and the arguments that are not about them. Raises ValueError for what pruning cannot honour."""
    for name in _REFUSED:
        if arguments.get(name) is not None:
            raise ValueError(f"{name} cannot be used inside a prune block: the prompt is shortened; leave it out")
    prompts = prompts_of(pruning.engine.family, arguments)
    gone = {*_VISION, *_REFUSED, "input_ids", "attention_mask"}
    return prompts, {key: value for key, value in arguments.items() if key not in gone}


def _forward(model: nn.Module, pruning: Pruning) -> Any:
    native = type(model).forward

    @functools.wraps(native.__get__(model))  # `generate` reads the signature
    def forward(*args: Any, **arguments: Any) -> Any:
        if args:
            arguments = {"input_ids": args[0], **arguments}
        if arguments.get("pixel_values") is None:
            return native(model, **arguments)  # text alone, a decoding step, or the prompt that we shortened
        prompts, rest = _prompts(pruning, arguments)
        if len(prompts) > 1:
            return _logits_of_batch(pruning, prompts, rest.get("logits_to_keep", 0))
        with pruning.engine.encoded(prompts[0], pruning.plan(prompts[0]), pruning.seed, Untimed()) as encoded:
            pruning.latest = (encoded.trace,)
            return native(model, **encoded.arguments, **rest)

    return forward


def _logits_of_batch(pruning: Pruning, prompts: list[Inputs], logits_to_keep: int) -> CausalLMOutputWithPast:
    plans = [pruning.plan(prompt) for prompt in prompts]
    together = pruning.engine.together(prompts, plans, pruning.seed, logits_to_keep)
    pruning.latest = together.traces
    return CausalLMOutputWithPast(logits=together.logits)


def _generate(model: nn.Module, pruning: Pruning) -> Any:
    native = type(model).generate

    @functools.wraps(native.__get__(model))
    def generate(inputs: Tensor | None = None, **arguments: Any) -> Any:
        if inputs is not None:
            arguments = {"input_ids": inputs, **arguments}
        if arguments.get("pixel_values") is None:
            return native(model, **arguments)
        full = arguments["input_ids"]
        prompts, rest = _prompts(pruning, arguments)
        plans = [pruning.plan(prompt) for prompt in prompts]
        if len(prompts) > 1:
            with torch.no_grad():
                together = pruning.engine.together(prompts, plans, pruning.seed)
            pruning.latest, short = together.traces, together.length
            out = together.generate(**_without(full.shape[1] - short, rest))
        else:
            removed = full.shape[1] - prompts[0].text_tokens - _entering(plans[0], prompts[0])
            out, trace = pruning.engine.generate(prompts[0], plans[0], pruning.seed, **_without(removed, rest))
            pruning.latest, short = (trace,), prompts[0].text_tokens + trace.entering[0]
        if isinstance(out, Tensor):
            return _with_full_prompt(full, out, short)
        out.sequences = _with_full_prompt(full, out.sequences, short)
        return out

    return generate


def _entering(plan: Plan, inputs: Inputs) -> int:
    return plan.entering[0] if plan.entering else inputs.shape.n


def _without(removed: int, rest: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `generate` of which those that count the prompt know that `removed` tokens of it are gone."""
    counting = {name: max(rest[name] - removed, 0) for name in ("max_length", "min_length") if rest.get(name)}
    return {**rest, **counting}


def _with_full_prompt(full: Tensor, sequences: Tensor, short: int) -> Tensor:
    """The caller's prompts with the new tokens; a prompt may have several sequences, one behind the other."""
    times = sequences.shape[0] // full.shape[0]
    return torch.cat([full.repeat_interleave(times, 0), sequences[:, short:]], dim=1)
