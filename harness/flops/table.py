"""Exact FLOPs of methods on a model at its real size, without running it and without its weights.

The model is built on the meta device (shapes, no memory), its real processor lays out one prompt, every method plans,
and harness/flops/planned.py counts what the plan will run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from harness.benchmarks.synthetic import SyntheticScene
from harness.budget.planning import Planner
from harness.budget.spec import BudgetSpec
from harness.flops.dims import ModelDims, dims_of
from harness.flops.prefill import Cost, planned_realised, unpruned_realised
from harness.models import catalogue
from harness.models.engine import plan_of
from harness.models.families.family import Family, Inputs
from harness.models.families.registry import family_class
from harness.models.loading import model_type
from harness.models.processors import TEXT, load_processor, processor_of
from harness.models.random_weights import adapter_of, on_meta
from harness.models.registry import parted, resolve
from harness.records.figures import INFEASIBLE, OK, UNSUPPORTED
from harness.records.records import FULL, Realised
from methods import build
from methods.base import Budget, BudgetInfeasible, Plan, Pruner, PruningError, Shape


@dataclass(frozen=True)
class Unloaded:
    """A model without weights, and its processor."""

    name: str
    family: Family
    processor: Any

    @property
    def dims(self) -> ModelDims:
        return dims_of(self.family.model.config)

    def inputs(self, scene: SyntheticScene) -> Inputs:
        """One prompt about the scene, its tensors on the meta device."""
        content = [{"type": "image"}, {"type": "text", "text": scene.question(TEXT)}]
        turn = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return self.family.inputs(self.processor(images=[scene.picture()], text=[turn], return_tensors="pt"))


def unloaded(name: str) -> Unloaded:
    """A published model by its short name, or a folder's or hub model's config. Raises what `resolve` raises."""
    entry = catalogue.find(name)
    if entry is not None:
        family, processor = adapter_of(entry)(on_meta(entry)), processor_of(entry)
    else:
        source, revision = parted(resolve(name))
        kind = family_class(model_type(source, revision))
        with torch.device("meta"):
            config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
            model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
        family, processor = kind(model.eval()), load_processor(source, revision=revision)
    family.read_template(processor)
    return Unloaded(name, family, processor)


@dataclass(frozen=True)
class Unrun:
    """A method that plans and never runs."""

    pruner: Pruner | None

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        return plan_of(self.pruner, budget, shape)


def flops_rows(
    model: Unloaded, methods: Sequence[str], budgets: Sequence[BudgetSpec], scenes: Sequence[SyntheticScene]
) -> Iterator[dict[str, Any]]:
    """One row a scene, method and budget, the unpruned one first. Keys are a promise: add, and never rename.

    *_flops: a multiply-accumulate counts 2, of the stages that harness/flops/prefill.py defines; flops_ratio, *_ratio:
    over the unpruned row, 1 = no saving. paper_2ndm, paper_3ndm: decoder layers by FastV's and SparseVLM's formulas.
    status "infeasible" and "unsupported" say why in `message`, their numbers are null.
    """
    for scene in scenes:
        inputs = model.inputs(scene)
        full = _numbers(model, None, BudgetSpec("layer_average", 1.0), inputs)
        yield _row(model, FULL, None, scene, inputs, full, full)
        for method in methods:
            if method == FULL:
                continue
            for budget in budgets:
                yield _asked(model, method, budget, scene, inputs, full)


def _asked(
    model: Unloaded, method: str, budget: BudgetSpec, scene: SyntheticScene, inputs: Inputs, full: dict[str, Any]
) -> dict[str, Any]:
    status, message, numbers = OK, "", dict.fromkeys(full)
    try:
        numbers = _numbers(model, build(method), budget, inputs)
    except BudgetInfeasible as error:
        status, message = INFEASIBLE, str(error)
    except PruningError as error:
        status, message = UNSUPPORTED, str(error)
    return _row(model, method, budget, scene, inputs, numbers, full, status, message)


def _numbers(model: Unloaded, pruner: Pruner | None, budget: BudgetSpec, inputs: Inputs) -> dict[str, Any]:
    dims, info = model.dims, model.family.info
    cost = Cost(dims, pruner, info)
    plan, asked = Planner(Unrun(pruner), budget, cost.planned_ratio).plan(inputs.shape, inputs.text)
    if pruner is None:
        realised = unpruned_realised(dims, inputs.shape, inputs.text_tokens)
    else:
        realised = planned_realised(dims, inputs.shape, plan, inputs.text, pruner, info)
    return {
        "asked_tokens": asked,
        "layer_average_tokens": plan.layer_average,
        **{f"{stage}_flops": flops for stage, flops in cost.by_stage(realised, plan).items()},
        "paper_3ndm_flops": _gated(dims, realised) + cost.by_stage(realised, plan)["paper_2ndm"],
    }


def _gated(dims: ModelDims, realised: Realised) -> int:
    """What SparseVLM's formula (an MLP of three matrices) counts beyond FastV's."""
    tokens = sum(entering + realised.text_tokens for entering in realised.entering)
    return tokens * dims.llm_width * dims.llm_mlp_width


def _row(
    model: Unloaded, method: str, budget: BudgetSpec | None, scene: SyntheticScene, inputs: Inputs,
    numbers: dict[str, Any], full: dict[str, Any], status: str = OK, message: str = "",
) -> dict[str, Any]:  # fmt: skip
    def ratio(name: str) -> float | None:
        return None if numbers[name] is None else numbers[name] / full[name]

    return {
        "model": model.name,
        "method": method,
        "budget": str(budget) if budget else "100%",
        "image_px": [scene.width_px, scene.height_px],
        "status": status,
        "message": message,
        "visual_tokens": inputs.shape.n,
        "text_tokens": inputs.text_tokens,
        **numbers,
        "flops_ratio": ratio("total_flops"),
        "llm_flops_ratio": ratio("llm_flops"),
        "paper_2ndm_ratio": ratio("paper_2ndm_flops"),
        "paper_3ndm_ratio": ratio("paper_3ndm_flops"),
        "vit_share": None if numbers["vit_flops"] is None else numbers["vit_flops"] / numbers["total_flops"],
    }
