"""Random: the control that keeps k tokens drawn uniformly. A method that does not beat it has selected nothing.

Ours; no paper. One pool over all images of a sample; survivors stay in raster order at their original positions.
The draw depends on run seed, sample and site alone (`view.seed`), so a rerun keeps the same tokens on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from methods.base import INTERFACE, Budget, BudgetInfeasible, Plan, Pruner, Selection, Shape, View


@dataclass(frozen=True)
class Random(Pruner):
    """k of n tokens, every subset equally likely."""

    name = "random"
    title = "Random"
    hooks = (INTERFACE,)
    cost = "O(n)"
    stochastic = True

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        if budget.kind == "native":
            raise BudgetInfeasible("random has no budget of its own; ask for one, such as --budget 50%", 1)
        return super().plan(budget, shape)

    def at_interface(self, view: View) -> Selection:
        drawn = torch.randperm(view.n, generator=view.generator())[: view.keep]  # (k,)
        return Selection(drawn.sort().values.to(view.hidden.device, non_blocking=True))
