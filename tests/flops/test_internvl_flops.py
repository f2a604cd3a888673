"""FLOPs of InternVL: to the unit against torch's counter, native and pruned, and as plans tell."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import InternVLConfig, InternVLForConditionalGeneration

import methods
from harness.flops.prefill import dims_of, planned_realised, prefill_flops, unpruned_realised
from harness.models.engine import Engine
from harness.models.families.internvl import InternVL
from harness.validate.tiny import EOS, IMAGE, internvl_processed
from methods.base import Budget

ONE, THREE = ((6, 6),), ((6, 6),) * 3
METHODS = (
    "full", "vprune", "divprune", "visionzip", "vispruner", "fastv", "pact", "tome", "saint", "quietprune:init",
    "cdpruner", "aim", "sparsevlm", "pyramiddrop", "downsample", "pool", "vtw", "hiprune", "scope", "prunesid",
)  # fmt: skip


@pytest.fixture(scope="module")
def family():
    config = InternVLConfig(
        vision_config={
            "num_hidden_layers": 8, "hidden_size": 24, "intermediate_size": 52, "num_attention_heads": 2,
            "image_size": 48, "patch_size": 4,
        },
        text_config={
            "model_type": "qwen2", "vocab_size": 96, "hidden_size": 40, "intermediate_size": 72,
            "num_hidden_layers": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        },
        image_token_id=IMAGE, image_seq_length=36,
    )  # fmt: skip
    torch.manual_seed(0)
    model = InternVLForConditionalGeneration(config).eval()
    model.generation_config.eos_token_id = EOS
    return InternVL(model)


def _attention_flops(query, key, value, *args, out_val=None, **kwargs) -> int:
    batch, heads, queries, width = query
    return 2 * 2 * batch * heads * queries * key[2] * width


def counter() -> FlopCounterMode:
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={flash: _attention_flops})


def total(counted: FlopCounterMode) -> int:
    """Everything but the rotary tables, which transformers 5.18 makes with a product of matrices."""
    tables = [sum(each.values()) for name, each in counted.get_flop_counts().items() if name.endswith("rotary_emb")]
    return counted.get_total_flops() - sum(tables)


@pytest.mark.parametrize("grids", [ONE, THREE])
def test_the_native_model_is_counted_to_the_unit(family, grids):
    batch = internvl_processed(grids)
    with counter() as counted, torch.no_grad():
        family.model(**batch, logits_to_keep=1)
    dims, shape = dims_of(family.model.config), family.inputs(batch).shape
    flops = prefill_flops(dims, unpruned_realised(dims, shape, batch["input_ids"].shape[1] - shape.n))
    by_module = {name: sum(each.values()) for name, each in counted.get_flop_counts().items()}
    whole = type(family.model).__name__
    assert flops.total == total(counted)
    assert flops.vit == by_module[f"{whole}.model.vision_tower"]
    assert flops.projector == by_module[f"{whole}.model.multi_modal_projector"]


@pytest.mark.parametrize("grids", [ONE, THREE])
@pytest.mark.parametrize("name", METHODS)
def test_what_ran_is_counted_to_the_unit_and_told_from_the_plan(family, name, grids):
    pruner = methods.build(name)
    engine, inputs = Engine(family, pruner), family.inputs(internvl_processed(grids))
    plan = engine.plan(Budget("layer_average", inputs.shape.n // 2 + 1), inputs.shape)
    with counter() as counted:
        realised = engine.prefill(inputs, plan).realised
    dims = dims_of(family.model.config)
    extra = pruner.extra_vit_token_count() if plan.layers_of("in-vit") else 0
    assert prefill_flops(dims, realised, extra).total == total(counted)
    told = planned_realised(dims, inputs.shape, plan, inputs.text, pruner, family.info)
    assert told == replace(realised, kept={})
