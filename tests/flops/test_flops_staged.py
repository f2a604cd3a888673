"""FLOPs of passes that the engine really ran: equal to the plan's and to torch's count, decisions included."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from tiny import Scripted, processed, qwen3_vl
from torch.utils.flop_counter import FlopCounterMode

from harness.flops.prefill import Cost, dims_of, planned_realised, prefill_flops, unpruned_realised
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods import build
from methods.base import IN_LLM, IN_VIT, INTERFACE, Budget, Plan, Selection, Signal, Site, View

ONE, TWO, LOPSIDED = ((4, 6),), ((6, 6), (3, 4)), ((6, 6), (1, 1))


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


METHODS = [
    ("full", {}),
    ("random", {}),
    ("grid", {}),
    ("vprune", {}),
    ("divprune", {}),
    ("fastv", {}),
    ("fastv", {"query": "all"}),
    ("pyramiddrop", {}),
    ("pact", {}),
    ("sparsevlm", {}),
    ("sparsevlm", {"version": "2.0"}),
    ("tome", {}),
    ("tome", {"granularity": "patch"}),
    ("quietprune", {"adapter": "untrained"}),
    ("quietprune", {"adapter": "untrained", "aggregate": False}),
]


@pytest.mark.parametrize("grids", [ONE, TWO, LOPSIDED])
@pytest.mark.parametrize(("name", "settings"), METHODS)
def test_what_ran_is_counted_to_the_unit_the_decision_included(family, name, settings, grids):
    _, pruner, plan, realised, counted = _prefill(family, name, settings, grids)
    extra = pruner.extra_vit_token_count() if plan.layers_of(IN_VIT) else 0
    assert prefill_flops(dims_of(family.model.config), realised, extra).total == counted


@pytest.mark.parametrize("grids", [ONE, TWO, LOPSIDED])
@pytest.mark.parametrize(("name", "settings"), METHODS)
def test_a_plan_tells_what_runs_the_decision_included(family, name, settings, grids):
    inputs, pruner, plan, realised, _ = _prefill(family, name, settings, grids)
    told = planned_realised(dims_of(family.model.config), inputs.shape, plan, inputs.text, pruner, family.info)
    assert told == replace(realised, kept={})
    assert len(told.sites) == len(plan.keeps)


def test_attention_among_all_patches_is_counted_for_one_image(family):
    inputs, pruner, plan, realised, counted = _prefill(family, "quietprune", {"guidance": "saliency"}, ONE)
    dims = dims_of(family.model.config)
    assert prefill_flops(dims, realised).total == counted
    assert planned_realised(dims, inputs.shape, plan, inputs.text, pruner, family.info) == replace(realised, kept={})


def test_every_signal_counts_what_torch_counts(family):
    """A layer that ran, peeked ones, and an aggregate at the interface that DeepStack's levels follow."""
    interface, cut, second = Site(INTERFACE), Site(IN_LLM, 2), Site(IN_LLM, 3)
    signals = (
        Signal("rows", layer=1, queries="visual", per_head=True),
        Signal("logits", layer=3),
        Signal("keys", layer=5),
        Signal("question"),
    )

    def gather(view: View) -> Selection:
        keep = torch.arange(view.n)[view.unit % 2 == 0]
        return Selection(keep, aggregate=torch.full((view.n,), 0.1))

    pruner = Gathering({interface: gather, cut: _first(12), second: _first(9)}, signals)
    engine, inputs = Engine(family, pruner), family.inputs(processed(TWO))
    plan = Plan({interface: 26, cut: 12, second: 9}, (26, 26, 12, 9, 9, 9))
    with _counter() as counter:
        realised = engine.prefill(inputs, plan).realised
    dims = dims_of(family.model.config)
    assert prefill_flops(dims, realised).total == counter.get_total_flops()
    assert planned_realised(dims, inputs.shape, plan, inputs.text, pruner) == replace(realised, kept={})


@pytest.mark.parametrize("granularity", ["unit", "patch"])
@pytest.mark.parametrize("grids", [ONE, TWO])
def test_cuts_between_attention_and_mlp_are_counted_and_planned_to_the_unit(family, grids, granularity):
    cuts = {Site(IN_VIT, 1, "attention"): 3, Site(IN_VIT, 1): 2, Site(IN_VIT, 5, "attention"): 1}
    signals = tuple(Signal("keys", "vit", site.layer, rope=False) for site in cuts)
    signals += (Signal("rows", "vit", 5, "received"),)
    rows = 4 if granularity == "patch" else 1

    def first(units):
        def decide(view):
            places = [torch.nonzero(view.image == image).flatten()[: units * rows] for image in range(view.images)]
            return Selection(torch.cat(places), key_bias=True)

        return decide

    pruner = ByRows({site: first(units) for site, units in cuts.items()}, signals, rows=granularity)
    engine, inputs = Engine(family, pruner), family.inputs(processed(grids))
    images = len(grids)
    plan = Plan({site: units * images for site, units in cuts.items()}, (images,) * 6)
    with _counter() as counter:
        realised = engine.prefill(inputs, plan).realised
    dims = dims_of(family.model.config)
    assert prefill_flops(dims, realised).total == counter.get_total_flops()
    assert planned_realised(dims, inputs.shape, plan, inputs.text, pruner) == replace(realised, kept={})
    assert realised.vit_mlp_tokens[1] != realised.vit_tokens[1] == realised.vit_tokens[0]


@dataclass(frozen=True)
class ByRows(Scripted):
    """As many rows of each image, units or patches."""

    rows: str = "unit"

    @property
    def granularity(self):
        return self.rows

    def alive_after(self, site, plan, shape):
        return ((plan.keeps[site] // len(shape.images), 0),) * len(shape.images)


@dataclass(frozen=True)
class Gathering(Scripted):
    """Half of each image's units and an aggregate of the image at the interface."""

    def alive_after(self, site, plan, shape):
        return tuple((n // 2, 1) for n in shape.images) if site.hook == INTERFACE else None


def _first(k: int):
    return lambda view: Selection(torch.arange(k))


def test_a_flops_ratio_is_what_a_run_of_its_plan_costs(family):
    inputs, pruner, plan, realised, _ = _prefill(family, "quietprune", {"adapter": "untrained"}, TWO)
    dims = dims_of(family.model.config)
    cost, unpruned = Cost(dims, pruner, family.info), Cost(dims, None, family.info)
    full = _prefill(family, "", {}, TWO)[3]
    everything = Plan({}, (inputs.shape.n,) * 6)
    ratio = cost.by_stage(realised, plan)["total"] / unpruned.by_stage(full, everything)["total"]
    assert cost.planned_ratio(plan, inputs.shape, inputs.text) == ratio
    assert cost.planned_ratio(everything, inputs.shape, inputs.text) == 1
    assert unpruned.planned_ratio(everything, inputs.shape, inputs.text) == 1


def test_extra_tokens_run_in_the_vit_and_nowhere_else(family):
    inputs, pruner, plan, realised, _ = _prefill(family, "quietprune", {"adapter": "untrained"}, TWO)
    assert plan.layers_of(IN_VIT)
    assert realised.vit_tokens[0] == tuple(4 * units + 1 for units in inputs.shape.images)
    assert realised.merged_units == sum(realised.entering) / len(realised.entering)
    with pytest.raises(ValueError, match="extra_vit_tokens"):
        prefill_flops(dims_of(family.model.config), realised)
    prefill_flops(dims_of(family.model.config), realised, pruner.extra_vit_token_count())
