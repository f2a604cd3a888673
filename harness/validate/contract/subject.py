"""A method on a tiny model, with everything that its hook methods were shown and decided written down."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache

import torch
from torch import Tensor, nn

import methods
from harness.flops.counted import HOOK_METHODS, overridden
from harness.models.engine import Engine, Prefill
from harness.models.families.family import Family, Inputs
from harness.models.families.registry import family_class
from harness.records.errors import UsageError
from harness.validate.tiny import TINY, Grids, TinyFamily
from methods.base import Budget, BudgetInfeasible, Plan, Pruner, PruningError, Resize, Selection, Shape, View

LLM_LAYERS, VIT_LAYERS = 16, 8


# What a method's own code may raise: it is judged here, not trusted.
MISTAKES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, PruningError,
    RuntimeError, TypeError, ValueError,
)  # fmt: skip
Decision = Selection | tuple[Resize, ...] | None


class Broken(Exception):
    """A promise that the method does not keep, in words."""


@dataclass(frozen=True)
class Call:
    """One call of a hook method. changed: the tensors of the view that are no longer what they were."""

    hook: str
    view: View
    selection: Decision
    changed: tuple[str, ...]

    @property
    def label(self) -> str:
        return self.view.site.label


@dataclass(frozen=True)
class Run:
    """One prompt through the model."""

    inputs: Inputs
    plan: Plan
    prefill: Prefill
    calls: tuple[Call, ...]


@dataclass(eq=False)
class Subject:
    """A method on a tiny model of one family. Runs are kept, so that several checks may look at one."""

    pruner: Pruner
    family_name: str
    device: str = "cpu"
    _calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = cache(self._engine)
        self.run = cache(self._run)
        self.inputs = cache(self._inputs)
        self.feasible = cache(self._feasible)

    @property
    def tiny(self) -> TinyFamily:
        return TINY[self.family_name]

    @property
    def ragged(self) -> tuple[Grids, Grids]:
        """Two prompts of different lengths: where a tower has one resolution, of one image and of several."""
        return (*self.tiny.one_image, self.tiny.several_images)[:2]

    @property
    def prunes(self) -> bool:
        """Whether the method acts anywhere at all (`full` does not)."""
        kind = type(self.pruner)
        return bool(kind.hooks) or any(getattr(kind, hook) is not getattr(Pruner, hook) for hook in HOOK_METHODS)

    @property
    def resizes(self) -> bool:
        """Whether it makes images smaller, whose tokens are then at most what was asked."""
        return any(isinstance(call.selection, tuple) for call in self.views())

    def shape(self, grids: Grids) -> Shape:
        return self.inputs(grids).shape

    def _feasible(self, grids: Grids) -> dict[int, Plan]:
        """Plans of this sample by layer average, all that the method does not refuse, all tokens left out."""
        plans = {}
        for tokens in range(1, self.shape(grids).n):
            try:
                plans[tokens] = self.pruner.plan(Budget("layer_average", tokens), self.shape(grids))
            except BudgetInfeasible:
                continue
        return plans

    def middle(self, grids: Grids) -> int:
        """About half of a sample's tokens, or the least that is feasible. Raises Broken where nothing is."""
        n, plans = self.shape(grids).n, self.feasible(grids)
        if not plans:
            raise Broken(f"no budget of 1..{n - 1} tokens is feasible on {grids}")
        return min(plans, key=lambda tokens: abs(tokens - n / 2))

    def fresh(self, grids: Grids, budget: Budget, seed: int = 0, dtype: torch.dtype = torch.float32) -> Run:
        """A run that is made anew."""
        engine, inputs = self.engine(dtype), self.inputs(grids, dtype)
        plan = engine.plan(budget, inputs.shape)
        self._calls.clear()
        prefill = engine.prefill(inputs, plan, seed)
        return Run(inputs, plan, prefill, tuple(self._calls))

    def _run(self, grids: Grids, budget: Budget, seed: int = 0, dtype: torch.dtype = torch.float32) -> Run:
        return self.fresh(grids, budget, seed, dtype)

    def _engine(self, dtype: torch.dtype = torch.float32) -> Engine:
        family = family_class(self.family_name)(self.untouched(dtype))
        return Engine(family, noting(self.pruner, self._calls), adapter_of(self.pruner, family))

    def untouched(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The tiny model as it is built, the same numbers every time."""
        return self.tiny.build(dtype, vit_layers=VIT_LAYERS, llm_layers=LLM_LAYERS).to(self.device)

    def _inputs(self, grids: Grids, dtype: torch.dtype = torch.float32) -> Inputs:
        return self.engine(dtype).family.inputs(self.tiny.processed(grids))

    def views(self) -> Iterator[Call]:
        """Calls to look at: of a run of one image, of one with several, and of the method's own rule if it has one."""
        if not self.prunes:
            return
        for grids in (self.tiny.one_image[0], self.tiny.several_images):
            yield from self.run(grids, Budget("layer_average", self.middle(grids))).calls
        try:
            yield from self.run(self.tiny.one_image[0], Budget("native", 0)).calls
        except MISTAKES:  # the check of its own rule tells
            return


def noting(pruner: Pruner, calls: list[Call]) -> Pruner:
    """The same pruner, whose hook methods write down what they were shown and what they answered."""
    kind = type(pruner)

    def method_for(hook: str) -> Callable[[Pruner, View], Decision]:
        def method(self: Pruner, view: View) -> Decision:
            before = {name: tensor.clone() for name, tensor in tensors_of(view).items()}
            selection = getattr(kind, hook)(self, view)
            after = tensors_of(view)
            changed = tuple(name for name in before if not equal(before[name], after[name]))
            calls.append(Call(hook, view, selection, changed))
            return selection

        return method

    return overridden(pruner, {hook: method_for(hook) for hook in HOOK_METHODS})


def tensors_of(view: View) -> dict[str, Tensor]:
    """The tensors of a view by name, its signals among them."""
    own = {f.name: getattr(view, f.name) for f in fields(view)}
    signals = {f"signal {signal.kind} {signal.queries}": tensor for signal, tensor in view.signals.items()}
    return {name: value for name, value in {**own, **signals}.items() if isinstance(value, Tensor)}


def equal(one: Tensor, other: Tensor) -> bool:
    """Bit-equal, not-a-number included."""
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())


def parts_of(selection: Decision) -> dict[str, Tensor]:
    """The tensors of a decision by name."""
    if not isinstance(selection, Selection):
        return {}
    named = {name: getattr(selection, name) for name in ("keep", "assign", "weight", "aggregate", "positions")}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def adapter_of(pruner: Pruner, family: Family) -> Mapping[str, Tensor] | None:
    """For a method that wants a trained adapter, the one that training would start from: tiny models have no other."""
    if not pruner.wants_adapter:
        return None
    start = replace(pruner, adapter="untrained").prepare(family.info)
    return start.state_dict() if isinstance(start, nn.Module) else None


def built(name: str) -> Pruner:
    """The method with its own settings. Raises UsageError for a file that cannot be imported or built."""
    try:
        pruner = methods.build(name)
    except PruningError as error:
        raise UsageError(str(error)) from error
    except (SyntaxError, *MISTAKES) as mistake:
        raise UsageError(f"{name} cannot be built: {type(mistake).__name__}: {mistake}") from mistake
    if not getattr(pruner, "name", ""):
        raise UsageError(f'{name} has no name; write name = "..." in the class')
    return pruner
