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

import methods
from harness.budget import BudgetSpec
from harness.models.clock import Untimed
from harness.models.engine import Engine
from harness.models.family import Inputs
from harness.models.loading import build_engine, family_of
from harness.models.trace import Trace
from harness.records import Realised
from methods.base import Budget, Plan, Pruner

_VISION = ("pixel_values", "image_grid_thw", "image_sizes", "mm_token_type_ids", "pixel_values_videos")
_REFUSED = ("labels", "inputs_embeds", "past_key_values", "position_ids")


@dataclass
class Pruning:
    """The open block. `last` is what the latest prompt with images really ran; None before the first."""

    engine: Engine
    budget: BudgetSpec
    seed: int
    last: Trace | None = None

    @property
    def realised(self) -> Realised | None:
        """Visual tokens per layer, kept units and so on of the latest prompt."""
        return self.last.realised if self.last else None

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
    returns the logits of the shortened prompt. One prompt at a time. Blocks nest: the inner one counts.
    Raises UsageError (family), BudgetError, UnknownMethod, BudgetInfeasible; ValueError for inputs it cannot take.
    """
    asked = BudgetSpec.parse(budget)
    if asked.kind == "flops_ratio":
        raise ValueError("a flops_ratio budget is solved by `harness run`; give tokens or a ratio of them here")
    pruner = method if isinstance(method, Pruner) else methods.build(method, **settings)
    pruning = Pruning(build_engine(family_of(model), pruner, processor), asked, seed)
    with _replaced(model, "forward", _forward(model, pruning)), _replaced(model, "generate", _generate(model, pruning)):
        yield pruning


@contextmanager
def _replaced(model: nn.Module, name: str, method: Any) -> Iterator[None]:
    """An instance attribute for the time of a block; what the instance had before comes back."""
    own = vars(model)
    missing = object()
    before = own.get(name, missing)
    own[name] = method
    try:
        yield
    finally:
        if before is missing:
            del own[name]
        else:
            own[name] = before


def _inputs(pruning: Pruning, arguments: dict[str, Any]) -> tuple[Inputs, dict[str, Any]]:
    """The prompt, and the arguments that are not about it. Raises ValueError for what pruning cannot honour."""
    for name in _REFUSED:
        if arguments.get(name) is not None:
            raise ValueError(f"{name} cannot be used inside a prune block: the prompt is shortened; leave it out")
    inputs = pruning.engine.family.inputs(arguments)
    gone = {*_VISION, *_REFUSED, "input_ids", "attention_mask"}
    return inputs, {key: value for key, value in arguments.items() if key not in gone}


def _forward(model: nn.Module, pruning: Pruning) -> Any:
    native = type(model).forward

    @functools.wraps(native.__get__(model))  # `generate` reads the signature
    def forward(*args: Any, **arguments: Any) -> Any:
        if args:
            arguments = {"input_ids": args[0], **arguments}
        if arguments.get("pixel_values") is None:
            return native(model, **arguments)  # text alone, a decoding step, or the prompt that we shortened
        inputs, rest = _inputs(pruning, arguments)
        with pruning.engine.encoded(inputs, pruning.plan(inputs), pruning.seed, Untimed()) as encoded:
            pruning.last = encoded.trace
            return native(model, **encoded.arguments, **rest)

    return forward


def _generate(model: nn.Module, pruning: Pruning) -> Any:
    native = type(model).generate

    @functools.wraps(native.__get__(model))
    def generate(inputs: Tensor | None = None, **arguments: Any) -> Any:
        if inputs is not None:
            arguments = {"input_ids": inputs, **arguments}
        if arguments.get("pixel_values") is None:
            return native(model, **arguments)
        full = arguments["input_ids"]
        prompt, rest = _inputs(pruning, arguments)
        plan = pruning.plan(prompt)
        removed = prompt.shape.n - _entering(plan, prompt)
        for name in ("max_length", "min_length"):  # they count the prompt
            if rest.get(name) is not None:
                rest[name] = max(rest[name] - removed, 0)
        out, pruning.last = pruning.engine.generate(prompt, plan, pruning.seed, **rest)
        short = prompt.text_tokens + pruning.last.entering[0]
        if isinstance(out, Tensor):
            return _with_full_prompt(full, out, short)
        out.sequences = _with_full_prompt(full, out.sequences, short)
        return out

    return generate


def _entering(plan: Plan, inputs: Inputs) -> int:
    return plan.entering[0] if plan.entering else inputs.shape.n


def _with_full_prompt(full: Tensor, sequences: Tensor, short: int) -> Tensor:
    return torch.cat([full.expand(sequences.shape[0], -1), sequences[:, short:]], dim=1)
