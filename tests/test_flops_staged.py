"""FLOPs of passes that the engine really ran: equal to the plan's, and to torch's count apart from the decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import processed, qwen3_vl
from torch.utils.flop_counter import FlopCounterMode

from harness.measure.flops import Declared, dims_of, planned_realised, prefill_flops, unpruned_realised
from harness.models.engine import Engine
from harness.models.qwen3_vl import Qwen3VL
from methods import build
from methods.base import IN_VIT, Budget, Site

ONE, TWO = ((4, 6),), ((6, 6), (3, 4))


@pytest.fixture(scope="module")
def family() -> Qwen3VL:
    return Qwen3VL(qwen3_vl())


def _attention_flops(query, key, value, *args, out_val=None, **kwargs) -> int:
    batch, heads, queries, width = query
    return 2 * 2 * batch * heads * queries * key[2] * width


def _counter() -> FlopCounterMode:
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={flash: _attention_flops})


def _prefill(family: Qwen3VL, name: str, settings: dict, grids):
    """(inputs, pruner, plan, realised, FLOPs that torch counted) at half of the tokens."""
    pruner = build(name, **settings) if name else None
    engine, inputs = Engine(family, pruner), family.inputs(processed(grids))
    plan = engine.plan(Budget("layer_average", inputs.shape.n // 2), inputs.shape)
    with _counter() as counter:
        realised = engine.prefill(inputs, plan).realised
    return inputs, pruner, plan, realised, counter.get_total_flops()


@pytest.mark.parametrize("grids", [ONE, TWO])
def test_the_unpruned_pass_is_counted_to_the_unit(family, grids):
    inputs, _, _, realised, counted = _prefill(family, "", {}, grids)
    dims = dims_of(family.model.config)
    assert realised == unpruned_realised(dims, inputs.shape, inputs.text_tokens)
    assert prefill_flops(dims, realised).total == counted


@pytest.mark.parametrize("grids", [ONE, TWO])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("random", {}),
        ("grid", {}),
        ("vprune", {}),
        ("divprune", {}),
        ("fastv", {}),
        ("quietprune", {"adapter": "untrained"}),
        ("quietprune", {"adapter": "untrained", "aggregate": False}),
    ],
)
def test_a_plan_tells_what_runs(family, name, settings, grids):
    inputs, pruner, plan, realised, _ = _prefill(family, name, settings, grids)

    def aggregates(site: Site) -> int:
        return len(grids) if getattr(pruner, "aggregate", False) else 0

    declared = Declared(pruner.extra_vit_token_count(), aggregates, pruner.selection_flops)
    told = planned_realised(dims_of(family.model.config), inputs.shape, plan, inputs.text_tokens, declared)
    assert told == replace(realised, kept={})
    assert len(told.sites) == len(plan.keeps)


@pytest.mark.parametrize("grids", [ONE, TWO])
@pytest.mark.parametrize("name", ["random", "vprune"])
def test_a_pruned_pass_is_counted_to_the_unit_where_the_decision_multiplies_nothing(family, name, grids):
    _, pruner, _, realised, counted = _prefill(family, name, {}, grids)
    flops = prefill_flops(dims_of(family.model.config), realised)
    assert flops.total - flops.select == counted
    assert pruner is not None


def test_the_rest_of_torchs_count_is_the_decision(family):
    """DivPrune's one product is its n x n Gram matrix."""
    inputs, _, _, realised, counted = _prefill(family, "divprune", {}, ONE)
    flops = prefill_flops(dims_of(family.model.config), realised)
    n, d = inputs.shape.n, family.model.config.text_config.hidden_size
    assert counted - (flops.total - flops.select) == 2 * n * n * d <= flops.select


def test_extra_tokens_run_in_the_vit_and_nowhere_else(family):
    inputs, pruner, plan, realised, _ = _prefill(family, "quietprune", {"adapter": "untrained"}, TWO)
    assert plan.layers_of(IN_VIT)
    assert realised.vit_tokens[0] == tuple(4 * units + 1 for units in inputs.shape.images)
    assert realised.merged_units == sum(realised.entering) / len(realised.entering)
    with pytest.raises(ValueError, match="extra_vit_tokens"):
        prefill_flops(dims_of(family.model.config), realised)
    prefill_flops(dims_of(family.model.config), realised, pruner.extra_vit_token_count())
