"""FLOPs of the LLaVA families: to the unit what torch counts, unpruned and pruned, and told from plans."""

from dataclasses import replace

import pytest
import torch
from test_flops_registry import attention_flops, plan_of
from torch.utils.flop_counter import FlopCounterMode

from harness.flops.prefill import Cost, dims_of, planned_realised, prefill_flops, unpruned_realised
from harness.models.engine import Engine
from harness.models.families.registry import family_class
from harness.validate.tiny import TINY
from methods import build
from methods.base import Budget

PROMPTS = {"llava": ((6, 6),) * 2, "llava_next": ((4, 12), (12, 6))}  # the second pads its first picture
METHODS = (
    *("", "random", "vprune", "fastv", "divprune", "visionzip", "vispruner", "tome", "quietprune:init"),
    *("vtw", "hiprune", "scope", "scope:add", "prunesid", "pixelprune"),
)


@pytest.fixture(scope="module", params=list(PROMPTS))
def family(request):
    return family_class(request.param)(TINY[request.param].build())


@pytest.mark.parametrize("name", METHODS)
def test_what_ran_is_counted_to_the_unit(family, name):
    pruner = build(name) if name else None
    engine = Engine(family, pruner)
    inputs = family.inputs(TINY[family.model_type].processed(PROMPTS[family.model_type]))
    plan = plan_of(engine, inputs.shape)
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={flash: attention_flops}) as counter:
        realised = engine.prefill(inputs, plan).realised
    told = Cost(dims_of(family.model.config), pruner, family.info).by_stage(realised, plan)
    assert told["total"] == counter.get_total_flops()


def test_the_unpruned_pass_is_told_from_the_shape(family):
    inputs = family.inputs(TINY[family.model_type].processed(PROMPTS[family.model_type]))
    engine, dims = Engine(family, None), dims_of(family.model.config)
    realised = engine.prefill(inputs, engine.plan(Budget("layer_average", 1), inputs.shape)).realised
    assert realised == unpruned_realised(dims, inputs.shape, inputs.text_tokens)


@pytest.mark.parametrize("name", ["fastv", "divprune", "visionzip", "quietprune:init"])
def test_a_plan_tells_what_runs(family, name):
    """To the unit; behind a cut among tiles to a few per cent, since the picture decides which tile keeps more."""
    pruner, dims = build(name), dims_of(family.model.config)
    inputs = family.inputs(TINY[family.model_type].processed(PROMPTS[family.model_type]))
    engine = Engine(family, pruner)
    plan = plan_of(engine, inputs.shape)
    realised = engine.prefill(inputs, plan).realised
    told = planned_realised(dims, inputs.shape, plan, inputs.text, pruner, family.info)
    if not (inputs.shape.tiles and plan.layers_of("in-vit")):
        assert told == replace(realised, kept={})
        return
    extra = pruner.extra_vit_token_count()
    planned, ran = prefill_flops(dims, told, extra), prefill_flops(dims, realised, extra)
    assert (planned.projector, planned.llm) == (ran.projector, ran.llm)
    assert planned.vit == pytest.approx(ran.vit, rel=0.03)
