"""From a budget in words to the plan of one sample: the tokens asked, and the integers that meet them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from harness.budget.spec import BudgetSpec, matches, solve_flops_ratio
from harness.records.records import PromptText, Record
from methods.base import Budget, BudgetInfeasible, Plan, Shape


class Planning(Protocol):
    """What turns a budget of one sample into a plan: an engine, or a method without a model."""

    def plan(self, budget: Budget, shape: Shape) -> Plan: ...


FlopsRatio = Callable[[Plan, Shape, PromptText], float]


class Planner:
    """Plans every sample of a run, each (shape, text length) once.

    flops_ratio(plan, shape, text): planned FLOPs of a plan over those of no pruning.
    """

    def __init__(self, engine: Planning, budget: BudgetSpec, flops_ratio: FlopsRatio):
        self._engine = engine
        self._budget = budget
        self._flops_ratio = flops_ratio
        self._known: dict[tuple[Shape, PromptText | None], tuple[Plan, int | None]] = {}

    def plan(self, shape: Shape, text: PromptText) -> tuple[Plan, int | None]:
        """The plan, and the tokens asked (None in native mode). Raises BudgetInfeasible."""
        key = (shape, text if self._budget.kind == "flops_ratio" else None)
        if key not in self._known:
            self._known[key] = self._solve(shape, text)
        return self._known[key]

    def _solve(self, shape: Shape, text: PromptText) -> tuple[Plan, int | None]:
        match self._budget.kind:
            case "native":
                return self._engine.plan(Budget("native", 0), shape), None
            case "flops_ratio":
                tokens = self._tokens_for_ratio(shape, text)
                return self._engine.plan(Budget("layer_average", tokens), shape), tokens
            case kind:
                tokens = self._budget.ask(shape.n)
                return self._engine.plan(Budget(kind, tokens), shape), tokens

    def _tokens_for_ratio(self, shape: Shape, text: PromptText) -> int:
        asked = self._budget.value
        assert isinstance(asked, float)  # BudgetSpec.parse made sure
        floor = self._floor(shape)

        def ratio_at(tokens: int) -> float:
            plan = self._engine.plan(Budget("layer_average", max(tokens, floor)), shape)
            return self._flops_ratio(plan, shape, text)

        tokens = max(solve_flops_ratio(asked, shape.n, ratio_at), floor)
        if tokens == floor and ratio_at(floor) > asked:
            raise BudgetInfeasible(
                f"the FLOPs ratio goes no lower than {ratio_at(floor):.3f} here ({floor} of {shape.n} visual tokens), "
                f"got {asked:g}; raise --budget",
                floor,
            )
        return tokens

    def _floor(self, shape: Shape) -> int:
        """The fewest tokens (layer average) that the method can plan for."""
        try:
            self._engine.plan(Budget("layer_average", 1), shape)
        except BudgetInfeasible as error:
            return math.ceil(error.floor)
        return 1


FALL_SHORT = ("downsample",)  # a grid of whole units cannot have any number of them: fewer than asked are allowed


def misses_budget(record: Record, kind: str, method: str = "") -> bool:
    """Whether a sample's realised tokens miss what was asked; never true in native mode or for an error row."""
    if record.asked_tokens is None or record.error is not None:
        return False
    entering = record.entering[:1] if kind == "interface_kept" else record.entering
    if method in FALL_SHORT and sum(entering) <= record.asked_tokens * len(entering):
        return False
    return not matches(record.asked_tokens, entering)
