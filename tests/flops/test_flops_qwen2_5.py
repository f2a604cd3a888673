"""FLOPs of Qwen2.5-VL: windows instead of whole images, by hand, to the unit against torch's count, and from plans."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import processed
from torch.utils.flop_counter import FlopCounterMode

from harness.flops.prefill import Cost, dims_of, planned_realised, prefill_flops, unpruned_realised
from harness.flops.vit_tokens import window_sizes, window_tokens
from harness.models.engine import Engine
from harness.models.families.qwen2_5_vl import Qwen25VL
from harness.validate.tiny import qwen2_5_vl
from methods import build
from methods.base import IN_VIT, PRE_TOKENIZATION, Budget

ODD, TWO = ((5, 3),), ((4, 6), (3, 1))


@pytest.fixture(scope="module")
def family() -> Qwen25VL:
    return Qwen25VL(qwen2_5_vl())


def _attention_flops(query, key, value, *args, out_val=None, **kwargs) -> int:
    batch, heads, queries, width = query
    return 2 * 2 * batch * heads * queries * key[2] * width


def counter() -> FlopCounterMode:
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={flash: _attention_flops})


def test_windows_at_the_far_edges_are_smaller():
    assert window_sizes((5, 3), 2) == (4, 2, 4, 2, 2, 1)
    assert window_sizes((4, 4), 4) == (16,)
    assert window_sizes((1, 1), 4) == (1,)


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (4, 4), (8, 8), (9, 7), (1, 12)])
def test_windows_are_those_of_the_model(family, grid):
    inputs = family.inputs(processed((grid,)))
    assert tuple(inputs.geometry["window_sizes"].tolist()) == window_sizes(grid, 2)


def test_windows_lose_alike_and_empty_ones_vanish(family):
    dims = dims_of(family.model.config)
    assert window_tokens(dims, (4, 4), units=8, aggregates=1, extra=1) == (1, 8, 8, 8, 8, 1)
    assert sum(window_tokens(dims, (5, 3), units=3, aggregates=0, extra=0)) == 12
    assert len(window_tokens(dims, (4, 4), units=2, aggregates=0, extra=0)) == 2


@pytest.mark.parametrize("grids", [ODD, TWO])
def test_native_qwen2_5_vl_is_counted_to_the_unit(family, grids):
    batch = processed(grids)
    with counter() as counted, torch.no_grad():
        family.model(**batch, logits_to_keep=1)
    dims, shape = dims_of(family.model.config), family.inputs(batch).shape
    realised = unpruned_realised(dims, shape, batch["input_ids"].shape[1] - shape.n)
    assert prefill_flops(dims, realised).total == counted.get_total_flops()


METHODS = [
    *("full", "vprune", "divprune", "visionzip", "vispruner", "fastv", "pact", "tome", "saint", "quietprune:init"),
    *("vtw", "hiprune", "scope", "prunesid"),
]


@pytest.mark.parametrize("grids", [ODD, TWO])
@pytest.mark.parametrize("name", METHODS)
def test_what_ran_is_counted_to_the_unit_and_told_from_the_plan(family, name, grids):
    pruner = build(name)
    engine, inputs = Engine(family, pruner), family.inputs(processed(grids))
    plan = engine.plan(Budget("layer_average", inputs.shape.n // 2 + 1), inputs.shape)
    with counter() as counted:
        realised = engine.prefill(inputs, plan).realised
    dims = dims_of(family.model.config)
    assert Cost(dims, pruner, family.info).by_stage(realised, plan)["total"] == counted.get_total_flops()
    told = planned_realised(dims, inputs.shape, plan, inputs.text, pruner, family.info)
    if any(site.hook in (PRE_TOKENIZATION, IN_VIT) for site in plan.keeps):
        assert [sum(tokens) for tokens in told.vit_attended] == [sum(tokens) for tokens in realised.vit_attended]
        told = replace(told, vit_attended=realised.vit_attended)
    assert told == replace(realised, kept={})
