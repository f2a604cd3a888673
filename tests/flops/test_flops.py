"""FLOPs: by hand on a toy, to the unit against torch's counter on a native model, and told from plans."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from harness.budget.spec import solve_flops_ratio
from harness.flops.prefill import ModelDims, dims_of, planned_realised, prefill_flops, unpruned_realised
from harness.latency.resources import kv_cache_bytes, peak_memory
from harness.records.records import PromptText, Realised
from methods.base import (
    IN_LLM,
    IN_VIT,
    INTERFACE,
    PRE_TOKENIZATION,
    Budget,
    InvalidSelection,
    ModelInfo,
    Plan,
    Pruner,
    Shape,
    Signal,
    Site,
    one_site_plan,
)

TOY = ModelDims(
    vit_layers=1,
    vit_width=2,
    vit_mlp_width=3,
    vit_mlp_matrices=2,
    vit_prefix_tokens=0,
    patch_values=5,
    unit_patches=4,
    unit_pixel_values=7,
    projector_linears=((8, 8), (8, 3)),
    projectors=2,
    llm_layers=1,
    llm_width=3,
    llm_query_width=4,
    llm_key_width=2,
    llm_head_width=2,
    llm_mlp_width=5,
    llm_mlp_matrices=3,
    vocabulary=10,
)


def qwen3_vl_config() -> Qwen3VLConfig:
    """No two sizes are equal, so that a formula that mixes two of them up cannot pass."""
    vision = {
        "depth": 3,
        "hidden_size": 24,
        "intermediate_size": 52,
        "num_heads": 2,
        "patch_size": 4,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "out_hidden_size": 40,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    text = {
        "hidden_size": 40,
        "intermediate_size": 72,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 96,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2]},
    }
    return Qwen3VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=90,
        video_token_id=91,
        vision_start_token_id=92,
        vision_end_token_id=93,
        tie_word_embeddings=True,
    )


@pytest.fixture(scope="module")
def model() -> Qwen3VLForConditionalGeneration:
    torch.manual_seed(0)
    return Qwen3VLForConditionalGeneration(qwen3_vl_config()).eval()


def _attention_flops(query, key, value, *args, out_val=None, **kwargs) -> int:
    batch, heads, queries, width = query
    return 2 * 2 * batch * heads * queries * key[2] * width


def counted(model: Qwen3VLForConditionalGeneration, grids: tuple[tuple[int, int], ...], words: int) -> dict[str, int]:
    """FLOPs that torch counts in a native forward. grids: rows and columns of units of each image."""
    ids = []
    for rows, columns in grids:
        ids += [92, *[90] * (rows * columns), 93]
    ids += [5] * words
    grid_thw = torch.tensor([[1, 2 * rows, 2 * columns] for rows, columns in grids])
    patches = int(grid_thw.prod(1).sum())
    input_ids = torch.tensor([ids])
    counter = FlopCounterMode(
        display=False,
        custom_mapping={torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops},
    )
    with counter, torch.no_grad():
        model(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            pixel_values=torch.randn(patches, 3 * 2 * 4 * 4),
            image_grid_thw=grid_thw,
            mm_token_type_ids=(input_ids == 90).int(),
            logits_to_keep=1,
        )
    by_module = counter.get_flop_counts()
    name = type(model).__name__
    return {
        "total": counter.get_total_flops(),
        "visual": sum(by_module[f"{name}.model.visual"].values()),
        "llm": sum(by_module[f"{name}.model.language_model"].values()) + sum(by_module[f"{name}.lm_head"].values()),
    }


TEXT = PromptText(total=9, behind=7, question=4)


@dataclass(frozen=True)
class Costed(Pruner):
    """A method that declares what a test says."""

    extra: int = 0
    rows: tuple = ()
    signals: tuple[Signal, ...] = ()

    def needs(self, shape):
        return self.signals

    def extra_vit_token_count(self):
        return self.extra

    def extra_vit_flops(self, question_tokens, model):
        return 1000 * question_tokens + model.vit_width

    def alive_after(self, site, plan, shape):
        return dict(self.rows).get(site)

    def selection_flops(self, site, n, k, d, shape):
        return n * k + d


def model_info() -> ModelInfo:
    return ModelInfo("qwen3_vl", 3, 3, vit_width=24, llm_width=40, unit_patches=4, rope="mrope")


def shape_of(*grids: tuple[int, int]) -> Shape:
    return Shape(grids=grids, vit_layers=3, llm_layers=3)


def test_a_toy_by_hand():
    realised = Realised(vit_tokens=((4, 8),), merged_units=3, entering=(3,), text_tokens=2, selection_flops=11)
    flops = prefill_flops(TOY, realised)
    embedding = 2 * 12 * 5 * 2
    block = 2 * (12 * (4 * 2 * 2) + 12 * (2 * 2 * 3) + 2 * (4 * 4 + 8 * 8) * 2)
    assert flops.vit == embedding + block == 240 + 1312
    assert flops.projector == 2 * 2 * 3 * (8 * 8 + 8 * 3) == 1056
    assert flops.select == 11
    layer = 2 * (5 * (2 * 3 * 4) + 5 * (2 * 3 * 2) + 5 * (3 * 3 * 5) + 2 * 25 * 4)
    assert flops.llm == layer + 2 * 3 * 10 == 1270
    assert flops.total == 1552 + 1056 + 11 + 1270
    assert flops.paper_2ndm == 4 * 5 * 9 + 2 * 25 * 3 + 2 * 5 * 3 * 5 == 480


@pytest.mark.parametrize(
    ("grids", "words"),
    [(((2, 2),), 4), (((3, 5),), 9), (((2, 3), (4, 4)), 6), (((1, 1), (2, 2), (5, 3)), 1)],
)
def test_native_qwen3_vl_is_counted_to_the_unit(model, grids, words):
    text_tokens = words + 2 * len(grids)
    flops = prefill_flops(
        dims_of(model.config), unpruned_realised(dims_of(model.config), shape_of(*grids), text_tokens)
    )
    torch_counts = counted(model, grids, words)
    assert flops.vit + flops.projector == torch_counts["visual"]
    assert flops.llm == torch_counts["llm"]
    assert flops.total == torch_counts["total"]


def test_a_shortened_decoder_is_counted_to_the_unit(model):
    """Layers one after another, each at its own length, as in-LLM pruning leaves them."""
    dims, lengths = dims_of(model.config), (20, 12, 7)
    counter = FlopCounterMode(
        display=False,
        custom_mapping={torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops},
    )
    decoder = model.model.language_model
    with counter, torch.no_grad():
        for layer, length in zip(decoder.layers, lengths, strict=True):
            hidden = torch.randn(1, length, dims.llm_width)
            tables = decoder.rotary_emb(hidden, torch.arange(length).expand(3, 1, -1))
            layer(hidden, position_embeddings=tables)
        model.lm_head(hidden[:, -1:])
    realised = Realised(((0,),), 0, tuple(n - 5 for n in lengths), text_tokens=5)
    assert prefill_flops(dims, realised).llm == counter.get_total_flops()


def test_a_shortened_vit_block_is_counted_to_the_unit(model):
    """Two images of 9 and 5 tokens (an extra token each, 2 and 1 units): attention stays inside an image."""
    dims, visual = dims_of(model.config), model.model.visual
    counter = FlopCounterMode(
        display=False,
        custom_mapping={torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops},
    )
    table = torch.zeros(14, dims.vit_width // 2)
    with counter, torch.no_grad():
        for block in visual.blocks:
            block(
                torch.randn(14, dims.vit_width), cu_seqlens=torch.tensor([0, 9, 14]), position_embeddings=(table, table)
            )
    realised = Realised(((9, 5),) * 3, 0, (0,) * 3, text_tokens=0)
    embedding = 2 * 12 * dims.patch_values * dims.vit_width
    assert prefill_flops(dims, realised, extra_vit_tokens=1).vit == counter.get_total_flops() + embedding


def test_extra_tokens_are_not_embedded_from_pixels_and_cannot_be_forgotten():
    realised = Realised(vit_tokens=((5,),), merged_units=1, entering=(1,), text_tokens=1)
    with pytest.raises(ValueError, match="extra_vit_tokens"):
        prefill_flops(TOY, realised)
    without = prefill_flops(TOY, replace(realised, vit_tokens=((4,),)))
    one_more = 2 * (16 + 12) + 2 * 2 * 2 * (25 - 16)  # its linear layers, and a wider attention
    assert prefill_flops(TOY, realised, extra_vit_tokens=1).vit - without.vit == one_more


def test_a_prefix_token_runs_in_every_block_and_is_not_embedded():
    clip = replace(TOY, vit_prefix_tokens=1)
    shape = Shape(grids=((1, 1),), vit_layers=1, llm_layers=1)
    realised = unpruned_realised(clip, shape, text_tokens=1)
    assert realised.vit_tokens == ((5,),)
    qcls = prefill_flops(TOY, realised, extra_vit_tokens=1)
    assert prefill_flops(clip, realised) == qcls


def test_an_unknown_family_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'other'.*qwen3_vl"):
        dims_of(SimpleNamespace(model_type="other"))


def test_a_plan_that_keeps_everything_is_the_unpruned_pass():
    shape = shape_of((2, 3), (4, 4))
    plan = Plan({}, (22, 22, 22))
    dims = dims_of(qwen3_vl_config())
    assert planned_realised(dims, shape, plan, TEXT) == unpruned_realised(dims, shape, text_tokens=9)


def test_pruning_pixels_shortens_everything_after_them():
    dims, shape = dims_of(qwen3_vl_config()), shape_of((4, 4))
    plan = one_site_plan("vprune", Site(PRE_TOKENIZATION), Budget("layer_average", 6), shape)
    realised = planned_realised(dims, shape, plan, TEXT, Costed())
    assert realised.vit_tokens == ((24,),) * 3
    assert (realised.merged_units, realised.entering) == (6, (6, 6, 6))
    assert realised.sites == (("pre-tokenization", 16, 6, 3 * 8 * 8),)
    assert realised.selection_flops == 16 * 6 + 192


def test_pruning_at_the_interface_spares_the_llm_alone():
    dims, shape = dims_of(qwen3_vl_config()), shape_of((4, 4))
    plan = one_site_plan("divprune", Site(INTERFACE), Budget("layer_average", 6), shape)
    realised = planned_realised(dims, shape, plan, TEXT)
    assert realised.vit_tokens == ((64,),) * 3
    assert (realised.merged_units, realised.entering) == (16, (6, 6, 6))
    assert realised.sites == (("interface", 16, 6, 40),)


def test_pruning_inside_the_llm_spares_its_later_layers():
    dims, shape = dims_of(qwen3_vl_config()), shape_of((4, 4))
    plan = one_site_plan("fastv", Site(IN_LLM, 2), Budget("layer_average", 12), shape)
    realised = planned_realised(dims, shape, plan, TEXT)
    assert realised.entering == (16, 16, 4)
    assert realised.sites == (("in-llm:2", 16, 4, 40),)


def test_in_vit_an_aggregate_is_one_token_and_one_row_of_the_projector():
    dims, shape = dims_of(qwen3_vl_config()), shape_of((4, 4))
    plan = Plan({Site(IN_VIT, 0): 11, Site(IN_VIT, 1): 6}, (6, 6, 6))
    pruner = Costed(extra=1, rows=((Site(IN_VIT, 0), ((10, 1),)), (Site(IN_VIT, 1), ((5, 1),))))
    realised = planned_realised(dims, shape, plan, TEXT, pruner, model_info())
    assert realised.vit_tokens == ((1 + 64,), (1 + 40 + 1,), (1 + 20 + 1,))
    assert realised.merged_units == 6
    assert realised.sites == (("in-vit:0", 16, 10, 24), ("in-vit:1", 11, 5, 24))
    declared = 4000 + 24 + (16 * 10 + 24) + (11 * 5 + 24)
    assert realised.selection_flops == declared + 2 * (16 + 11) * 4 * 24  # each aggregate sums over all rows


def test_an_aggregate_where_none_can_be_is_refused():
    dims, shape, inside = dims_of(qwen3_vl_config()), shape_of((4, 4)), Site(IN_LLM, 1)
    plan, pruner = Plan({inside: 6}, (16, 6, 6)), Costed(rows=((inside, ((5, 1),)),))
    with pytest.raises(InvalidSelection, match="in-llm:1"):
        planned_realised(dims, shape, plan, TEXT, pruner)


def test_a_vit_signal_costs_its_products_over_all_tokens_of_each_image():
    dims, shape = dims_of(qwen3_vl_config()), shape_of((1, 2), (1, 3))
    plan = Plan({Site(IN_VIT, 0): 4}, (4, 4, 4))
    rows = ((Site(IN_VIT, 0), ((1, 0), (3, 0))),)
    signals = (Signal("rows", "vit", 0, "extra"), Signal("logits", "vit", 1, "visual"), Signal("features", "vit"))
    realised = planned_realised(dims, shape, plan, TEXT, Costed(2, rows, signals), model_info())
    declared = 2 * (4000 + 24) + 5 * 4 + 24
    first, second = 2 * (10 + 14), 4 * 6 + 12 * 14
    assert realised.selection_flops == declared + 2 * 24 * (first + second)
    with pytest.raises(ValueError, match="cls"):
        signals = (Signal("rows", "vit", 0, "cls"),)
        planned_realised(dims, shape, plan, TEXT, Costed(2, rows, signals), model_info())


def test_a_signal_of_a_layer_that_ran_costs_its_products_and_a_peeked_one_its_projections_too():
    dims, shape = dims_of(qwen3_vl_config()), shape_of((2, 3))
    plan = Plan({Site(IN_LLM, 1): 4, Site(IN_LLM, 2): 3}, (6, 4, 3))

    def flops(*signals: Signal) -> int:
        declared = 6 * 4 + 40 + 4 * 3 + 40
        return planned_realised(dims, shape, plan, TEXT, Costed(signals=signals)).selection_flops - declared

    last = 2 * 64  # one query of one key: 4 heads of 16
    assert flops(Signal("rows", layer=0)) == 2 * last * 15  # read at both sites, over all tokens of layer 0
    assert flops(Signal("rows", layer=0, queries="visual")) == last * 15 * (6 + 4)
    assert flops(Signal("logits", layer=0, queries="text")) == 2 * last * 15 * 7
    projected = 2 * 40 * (64 + 32)  # a token's queries and keys
    assert flops(Signal("rows", layer=2)) == (projected + last) * (15 + 13)
    assert flops(Signal("keys", layer=2)) == projected * (15 + 13)
    assert flops(Signal("keys", layer=0)) == flops(Signal("question")) == flops() == 0


def test_several_images_share_a_site_in_proportion():
    dims, shape = dims_of(qwen3_vl_config()), shape_of((4, 4), (2, 4))
    plan = Plan({Site(IN_VIT, 0): 12, Site(IN_VIT, 1): 6}, (6, 6, 6))
    realised = planned_realised(dims, shape, plan, TEXT, Costed())
    assert realised.vit_tokens == ((64, 32), (4 * 8, 4 * 4), (4 * 4, 4 * 2))


def test_extra_tokens_need_an_in_vit_site():
    dims, shape = dims_of(qwen3_vl_config()), shape_of((4, 4))
    plan = one_site_plan("divprune", Site(INTERFACE), Budget("layer_average", 6), shape)
    assert planned_realised(dims, shape, plan, TEXT, Costed(extra=1)).vit_tokens == ((64,),) * 3


def test_a_native_plan_cannot_be_told_in_advance():
    dims, shape = dims_of(qwen3_vl_config()), shape_of((4, 4))
    with pytest.raises(ValueError, match="native"):
        planned_realised(dims, shape, one_site_plan("vprune", Site(INTERFACE), Budget("native", 0), shape), TEXT)


def test_a_cut_behind_an_attention_spares_the_mlp_of_that_block_already():
    dims, shape = dims_of(qwen3_vl_config()), shape_of((4, 4))
    early, late = (Plan({Site(IN_VIT, 0, after): 6}, (6, 6, 6)) for after in ("attention", "block"))
    cut, uncut = (planned_realised(dims, shape, plan, TEXT) for plan in (early, late))
    assert cut.vit_tokens == uncut.vit_tokens == ((64,), (24,), (24,))
    assert cut.vit_mlp_tokens == ((24,), (24,), (24,)) and uncut.vit_mlp_tokens == ()
    assert cut.sites == (("in-vit:0:attention", 16, 6, 24),)
    saved = prefill_flops(dims, uncut).vit - prefill_flops(dims, cut).vit
    assert saved == 2 * 40 * 2 * 24 * 52  # of 40 patches, two matrices


def test_a_method_that_sees_single_patches_decides_over_four_times_the_rows():
    dims, shape = dims_of(qwen3_vl_config()), shape_of((4, 4))
    plan = Plan({Site(IN_VIT, 0): 11, Site(IN_VIT, 1): 6}, (6, 6, 6))
    units, patches = (planned_realised(dims, shape, plan, TEXT, pruner) for pruner in (Costed(), ByPatch()))
    assert patches.sites == (("in-vit:0", 64, 44, 24), ("in-vit:1", 44, 24, 24))
    assert patches.vit_tokens == units.vit_tokens == ((64,), (44,), (24,))
    assert (patches.merged_units, patches.entering) == (6, (6, 6, 6))
    assert patches.selection_flops == 64 * 44 + 24 + 44 * 24 + 24


@dataclass(frozen=True)
class ByPatch(Costed):
    granularity = "patch"


def test_a_flops_ratio_is_solved_from_plans_alone():
    dims, shape = dims_of(qwen3_vl_config()), shape_of((8, 8))
    base = prefill_flops(dims, unpruned_realised(dims, shape, TEXT.total)).total

    def ratio_at(tokens: int) -> float:
        plan = one_site_plan("vprune", Site(PRE_TOKENIZATION), Budget("layer_average", tokens), shape)
        return prefill_flops(dims, planned_realised(dims, shape, plan, TEXT)).total / base

    tokens = solve_flops_ratio(0.4, 64, ratio_at)
    assert abs(ratio_at(tokens) - 0.4) <= min(abs(ratio_at(tokens - 1) - 0.4), abs(ratio_at(tokens + 1) - 0.4))
    assert 10 < tokens < 40


def test_the_cache_holds_keys_and_values_at_each_layers_own_length():
    realised = Realised(((0,),), 0, (16, 4), text_tokens=3)
    assert kv_cache_bytes(TOY, realised, bytes_per_value=2) == (19 + 7) * 2 * 2 * 2


def test_peak_memory_runs_the_pass_once_and_says_what_it_can():
    runs = []
    peak = peak_memory(lambda: runs.append(1))
    assert runs == [1]
    assert peak.host_peak_rss_bytes > 50 * 2**20  # torch alone takes more
    assert (peak.allocated_bytes is None) == (not torch.cuda.is_available())
