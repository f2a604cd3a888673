"""FLOPs of a run's samples under its method: what ran, and what a plan would run."""

from __future__ import annotations

from dataclasses import dataclass

from harness.measure.dims import ModelDims
from harness.measure.flops import Declared, planned_realised, prefill_flops, unpruned_realised
from harness.records import Realised
from methods.base import IN_VIT, Plan, Pruner, Shape


@dataclass(frozen=True)
class Cost:
    """The cost of one method on one model. pruner: None for unpruned."""

    dims: ModelDims
    pruner: Pruner | None

    def by_stage(self, realised: Realised, plan: Plan) -> dict[str, int]:
        """What one forward pass cost, as `Record.flops`."""
        flops = prefill_flops(self.dims, realised, self._extra_vit_tokens(plan))
        return {
            "vit": flops.vit,
            "projector": flops.projector,
            "select": flops.select,
            "llm": flops.llm,
            "total": flops.total,
            "paper_2ndm": flops.paper_2ndm,
        }

    def planned_ratio(self, plan: Plan, shape: Shape, text_tokens: int) -> float:
        """What a plan will cost over what no pruning costs; > 0, and 1 for an empty plan."""
        declared = None
        if self.pruner is not None:
            declared = Declared(self.pruner.extra_vit_token_count(), selection_flops=self.pruner.selection_flops)
        planned = planned_realised(self.dims, shape, plan, text_tokens, declared)
        full = prefill_flops(self.dims, unpruned_realised(self.dims, shape, text_tokens))
        return prefill_flops(self.dims, planned, self._extra_vit_tokens(plan)).total / full.total

    def _extra_vit_tokens(self, plan: Plan) -> int:
        """The engine asks a method for extra tokens only where its plan has an in-vit site."""
        return self.pruner.extra_vit_token_count() if self.pruner is not None and plan.layers_of(IN_VIT) else 0
