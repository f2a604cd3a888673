"""FLOPs of a run's samples under its method: what ran, and what a plan would run."""

from __future__ import annotations

from dataclasses import dataclass

from harness.measure.dims import ModelDims
from harness.measure.flops import planned_realised, prefill_flops, unpruned_realised
from harness.records.records import PromptText, Realised
from methods.base import IN_VIT, ModelInfo, Plan, Pruner, Shape


@dataclass(frozen=True)
class Cost:
    """The cost of one method on one model. pruner: None for unpruned."""

    dims: ModelDims
    pruner: Pruner | None
    model: ModelInfo

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

    def planned_ratio(self, plan: Plan, shape: Shape, text: PromptText) -> float:
        """What a plan will cost over what no pruning costs; > 0, and 1 for an empty plan."""
        full = unpruned_realised(self.dims, shape, text.total)
        planned = full
        if self.pruner is not None:
            planned = planned_realised(self.dims, shape, plan, text, self.pruner, self.model)
        return (
            prefill_flops(self.dims, planned, self._extra_vit_tokens(plan)).total / prefill_flops(self.dims, full).total
        )

    def _extra_vit_tokens(self, plan: Plan) -> int:
        """The engine asks a method for extra tokens only where its plan has an in-vit site."""
        return self.pruner.extra_vit_token_count() if self.pruner is not None and plan.layers_of(IN_VIT) else 0
