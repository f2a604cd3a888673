"""FLOPs of every shipped method and preset equal what torch counts, to the unit, the decision included.

Methods are found by listing, so that a new one is held to this without touching this file.
"""

from __future__ import annotations

import math

import pytest
import torch
from tiny import processed, qwen3_vl
from torch.utils.flop_counter import FlopCounterMode

from harness.flops.prefill import Cost, dims_of
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods import build, get, names
from methods.base import Budget, BudgetInfeasible, Plan, Pruner, Shape

GRIDS = {"one image": ((4, 6),), "two images": ((6, 6), (3, 4))}
WITHOUT_WEIGHTS = {"quietprune": {"adapter": "untrained"}}  # tests have no adapter for a tiny model
METHODS = [f"{name}:{preset}".strip(":") for name in names() for preset in ("", *get(name).presets)]


@pytest.fixture(scope="module")
def family() -> Qwen3VL:
    return Qwen3VL(qwen3_vl())


def attention_flops(query, key, value, *args, out_val=None, **kwargs) -> int:
    """The two products of an attention, which the counter does not know on a CPU."""
    batch, heads, queries, width = query
    return 2 * 2 * batch * heads * queries * key[2] * width


def plan_of(engine: Engine, shape: Shape) -> Plan:
    """Half of the tokens, or the fewest that the method can plan for."""
    try:
        return engine.plan(Budget("layer_average", shape.n // 2), shape)
    except BudgetInfeasible as error:
        return engine.plan(Budget("layer_average", math.ceil(error.floor)), shape)


@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("name", METHODS)
def test_flops_are_counted_to_the_unit_the_selection_included(family: Qwen3VL, name: str, grids):
    pruner: Pruner = build(name, **WITHOUT_WEIGHTS.get(name.partition(":")[0], {}))
    engine, inputs = Engine(family, pruner), family.inputs(processed(grids))
    plan = plan_of(engine, inputs.shape)
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={flash: attention_flops}) as counter:
        realised = engine.prefill(inputs, plan).realised
    told = Cost(dims_of(family.model.config), pruner, family.info).by_stage(realised, plan)
    assert told["total"] == counter.get_total_flops()
    assert told["total"] == told["vit"] + told["projector"] + told["select"] + told["llm"]


def test_methods_are_found_by_listing():
    assert {"full", "divprune", "fastv", "tome", "quietprune"} <= set(METHODS)
