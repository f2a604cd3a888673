"""Full: the control that prunes nothing. Every other method's accuracy and latency is told against it.

Ours; no paper. It asks for no site, so the model runs its ordinary forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.base import Budget, Plan, Pruner, Shape


@dataclass(frozen=True)
class Full(Pruner):
    """Every visual token, whatever the budget says; a run with a smaller budget fails its budget check."""

    name = "full"
    title = "Full (no pruning)"

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        return Plan({}, (shape.n,) * shape.llm_layers)
