from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from literal import aim as literal
from tiny import processed, qwen3_vl
from torch.utils.flop_counter import FlopCounterMode
from views import shape_of, view_of

from harness.flops.prefill import dims_of, planned_realised
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods.aim import Aim, importance, merging, stages
from methods.base import IN_LLM, INTERFACE, Budget, BudgetInfeasible, MissingSignal, PruningError, Signal, Site
from methods.selection import reduce, reduce_sizes


def at_angles(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees])


def merged(tokens, k, *grids, rope="1d", **settings):
    view = view_of(Site(INTERFACE), tokens, k, shape_of(*(grids or ((1, len(tokens)),))))
    return Aim(**settings).at_interface(replace(view, rope=rope))


# --- merging ------------------------------------------------------------------------------------------------------


def test_the_most_similar_even_place_joins_its_odd_partner_and_the_others_come_first():
    # Even places at 0, 100, 200 degrees, odd ones at 10, 120, 290. Closest: 0 to 10, 100 to 120, 200 to 120 or 290.
    tokens = at_angles(0, 10, 100, 120, 200, 290)
    one = merged(tokens, 5)  # 0 joins 1; 2 is closer to a partner than 4, so it stands first
    assert one.keep.tolist() == [2, 4, 1, 3, 5] and one.assign.tolist() == [2, 2, 0, 3, 1, 4]
    torch.testing.assert_close(reduce(one, tokens)[2], (tokens[0] + tokens[1]) / 2)
    three = merged(tokens, 3)  # 4 is 80 degrees from 3 and 90 from 5
    assert three.keep.tolist() == [1, 3, 5] and three.assign.tolist() == [0, 0, 1, 1, 1, 2]
    torch.testing.assert_close(reduce(three, tokens)[1], (tokens[2] + tokens[3] + tokens[4]) / 3)


def test_a_second_stage_means_the_means_without_their_sizes():
    # Values 1, 3, 4, 8 in one direction: 0 and 2 both join 1 (ties go to the first); then (1 + 3 + 4) / 3 joins 8.
    tokens = torch.tensor([[1.0], [3], [4], [8]])
    selection = merged(tokens, 1)
    assert selection.weight.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert reduce(selection, tokens).item() == pytest.approx((8 / 3 + 8) / 2)
    assert reduce_sizes(selection, torch.ones(4)).tolist() == [4]


def test_stages_halve_as_the_authors_do_and_the_last_one_takes_the_remainder():
    assert list(stages(196, 49)) == [98, 49]
    assert list(stages(576, 252)) == [288, 36]
    assert list(stages(576, 72)) == [288, 144, 72]
    assert list(stages(169, 43)) == [84, 42]
    assert list(stages(15, 4)) == [7, 3, 1]  # a quarter of the 15, not half of the 8 that are left
    assert list(stages(15, 1)) == [7, 3, 1, 2, 1]
    assert list(stages(9, 9)) == []


def test_three_stages_at_once_are_three_stages_one_after_the_other():
    tokens = torch.randn(48, 3, generator=torch.Generator().manual_seed(0))
    staged = tokens
    for k in (24, 12, 6):
        staged = reduce(merging(staged, k), staged)
    torch.testing.assert_close(reduce(merging(tokens, 6), tokens), staged)


@pytest.mark.parametrize("n", [24, 65, 300])
def test_two_stages_give_the_literal_tokens_in_the_literal_order(n):
    tokens = torch.randn(n, 24, generator=torch.Generator().manual_seed(n))
    once = literal.merge(tokens, n // 2, tokens)
    twice = literal.merge(once, n // 4, once)
    torch.testing.assert_close(reduce(merged(tokens, len(twice)), tokens), twice)


def test_raster_order_sorts_the_same_slots():
    tokens = torch.randn(23, 4, generator=torch.Generator().manual_seed(0))
    official, raster = merged(tokens, 14), merged(tokens, 14, order="raster")
    assert official.keep.tolist() != sorted(official.keep.tolist()) == raster.keep.tolist()
    order = torch.argsort(official.keep)
    torch.testing.assert_close(reduce(raster, tokens), reduce(official, tokens)[order])


def test_every_token_is_in_exactly_one_slot_whose_members_average_to_it():
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 7, 24, 65):
        tokens = torch.randn(n, 8, generator=generator)
        for k in range(1, n + 1):
            selection = merging(tokens, k)
            selection.validate(n, k)
            assert sorted(set(selection.assign.tolist())) == list(range(k))
            assert torch.equal(selection.assign[selection.keep], torch.arange(k))
            mass = torch.zeros(k).index_add_(0, selection.assign, selection.weight)
            torch.testing.assert_close(mass, torch.ones(k))
            assert torch.equal(merging(tokens, k).keep, selection.keep)


def test_merging_to_all_tokens_is_the_identity():
    tokens = torch.randn(9, 4)
    assert torch.equal(reduce(merged(tokens, 9), tokens), tokens)


def test_each_image_is_merged_alone_and_keeps_a_token_at_least():
    tokens = torch.randn(37, 4, generator=torch.Generator().manual_seed(0))
    both = merged(tokens, 10, (6, 6), (1, 1))
    assert both.keep[-1] == 36 and both.assign[36] == 9
    assert torch.equal(both.keep[:9], merging(tokens[:36], 9).keep)
    assert torch.equal(both.assign[:36], merging(tokens[:36], 9).assign)


def test_positions_are_renumbered_in_one_dimension_and_the_partners_own_with_m_rope():
    tokens = torch.randn(8, 4)
    assert merged(tokens, 4).positions == "renumber"
    assert merged(tokens, 4, rope="mrope").positions is None and Aim.positions == "original"


def test_another_metric_decides_who_merges_and_a_model_gives_it():
    tokens, keys = at_angles(0, 10, 100, 120, 200, 290), at_angles(0, 90, 180, 185, 300, 30)
    signal = Signal("keys", "vit", 7, rope=False)
    assert signal in Aim(metric="keys").needs(shape_of((1, 6)))
    view = view_of(Site(INTERFACE), tokens, 5, shape_of((1, 6)), {signal: keys.view(6, 1, 1, 2)})
    selection = Aim(metric="keys").at_interface(view)
    assert selection.assign[2] == selection.assign[3]  # at 180 and 185 degrees
    family = Qwen3VL(qwen3_vl())
    engine, inputs = Engine(family, Aim(metric="keys")), family.inputs(processed())
    plan = engine.plan(Budget("layer_average", 12), inputs.shape)
    assert engine.prefill(inputs, plan).realised.entering == plan.entering


# --- pruning ------------------------------------------------------------------------------------------------------


def test_pagerank_by_hand():
    # Two tokens, the first sees itself, the second both alike: P = [[1, 0], [.5, .5]]. From (.5, .5) to (.75, .25),
    # then (.875, .125). A second head that always looks at token 2: (0, 1). Root mean squares of the two.
    low = -torch.inf
    logits = torch.tensor([[[0, low], [0, 0]], [[low, 0], [low, 0]]])
    once, twice = importance(logits, 0.1, 1), importance(logits, 0.1, 2)
    assert once.tolist() == pytest.approx([0.75 / 2**0.5, ((0.25**2 + 1) / 2) ** 0.5])
    assert twice.tolist() == pytest.approx([0.875 / 2**0.5, ((0.125**2 + 1) / 2) ** 0.5])


@pytest.mark.parametrize(("heads", "length"), [(3, 40), (5, 700)])  # a head of 700 tokens at a time, or all at once
def test_importance_is_the_literal_one(heads, length):
    logits = 0.3 * torch.randn(heads, length, length, generator=torch.Generator().manual_seed(length))
    logits.masked_fill_(torch.ones(length, length).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(importance(logits, 0.1, 5), literal.importance(logits, 0.1, 5), atol=1e-7, rtol=0)


def test_temperature_divides_the_logits():
    logits = torch.tensor([[[0.0, math.log(3) / 10], [0.0, math.log(3) / 10]]])
    assert importance(logits, 0.1, 5).tolist() == pytest.approx([0.25, 0.75])


def test_visual_tokens_are_ranked_among_themselves_and_text_only_votes():
    # Three visual tokens and a text token that everybody looks at most; of the visual ones, 2 and then 0 are next.
    signal = Signal("logits", layer=14, queries="all", per_head=True, at=15)
    logits = (0.1 * torch.tensor([0.2, 0.1, 0.3, 0.4]).log()).expand(1, 4, 4)
    view = view_of(Site(IN_LLM, 15), torch.zeros(3, 2), 2, shape_of((1, 3), llm_layers=28), {signal: logits})
    assert Aim().in_llm(view).keep.tolist() == [0, 2]
    with pytest.raises(MissingSignal):
        Aim().in_llm(replace(view, signals={}))


# --- budgets ------------------------------------------------------------------------------------------------------


def test_native_plan_of_the_authors_model():
    plan = Aim().plan(Budget("native", 0), shape_of((14, 14), llm_layers=28))
    ramp = (42, 36, 30, 24, 18, 12, 6)  # 7/8 of 49 is 42.9, 6/8 is 36.75, ...: rounded down
    assert plan.entering == (49,) * 15 + ramp + (0,) * 6
    assert list(plan.keeps) == [Site(INTERFACE), *(Site(IN_LLM, layer) for layer in range(15, 23))]
    assert plan.layer_average / 196 == pytest.approx(0.1652, abs=2e-3)


def test_native_plan_of_llava():
    for settings, share in (({"merge": 0.125}, 0.0684), ({"merge": 0.4375}, 0.2393)):
        plan = Aim(**settings, start=13, depth=32).plan(Budget("native", 0), shape_of((24, 24), llm_layers=32))
        assert plan.entering[21:] == (0,) * 11 and plan.entering[20] > 0
        assert plan.layer_average / 576 == pytest.approx(share, abs=1e-3)
    assert plan.keeps[Site(INTERFACE)] == 252


def test_an_interface_budget_is_what_merging_leaves():
    plan = Aim().plan(Budget("interface_kept", 49), shape_of((14, 14), llm_layers=28))
    assert plan == Aim().plan(Budget("native", 0), shape_of((14, 14), llm_layers=28))


def test_half_of_the_tokens_on_28_layers_by_hand():
    # The ramp is worth 14 + 1 + 3.5 = 18.5 layers; 28 x 98 = 2744 = 18.5 x 148.3: 148 stay after merging, and the
    # ramp holds 2744 - 15 x 148 = 524 tokens.
    plan = Aim().plan(Budget("layer_average", 98), shape_of((14, 14), llm_layers=28))
    assert plan.keeps[Site(INTERFACE)] == 148 and plan.entering[:15] == (148,) * 15
    assert sum(plan.entering[15:22]) == 524 and plan.entering[22:] == (0,) * 6


@pytest.mark.parametrize("layers", [4, 6, 16, 24, 28, 36])
@pytest.mark.parametrize("grid", [(1, 2), (4, 6), (14, 14), (24, 24)])
def test_every_budget_is_met_on_the_layer_average(layers, grid):
    shape = shape_of(grid, llm_layers=layers)
    candidates = set(Aim().needs(shape))
    for k in range(1, shape.n, 1 if shape.n < 200 else 7):
        plan = Aim().plan(Budget("layer_average", k), shape)
        assert abs(plan.layer_average - k) <= 1
        if k >= 40 and layers >= 16:
            assert plan.layer_average == k
        assert all(a >= b >= 0 for a, b in zip(plan.entering, plan.entering[1:], strict=False))
        before = shape.n
        for site, alive in plan.keeps.items():
            assert plan.entering[site.layer] == alive < before
            if site.hook == IN_LLM:
                assert any(signal.at == site.layer for signal in candidates)
            before = alive


def test_a_generous_budget_merges_nothing_and_starts_later():
    plan = Aim().plan(Budget("layer_average", 160), shape_of((14, 14), llm_layers=28))
    assert Site(INTERFACE) not in plan.keeps and plan.layer_average == 160
    assert next(iter(plan.keeps)).layer > 15


def test_fewer_tokens_than_images_is_refused_with_the_floor():
    shape = shape_of(*((4, 4),) * 9, llm_layers=28)
    with pytest.raises(BudgetInfeasible) as caught:
        Aim().plan(Budget("layer_average", 4), shape)
    assert caught.value.floor == pytest.approx(9 * 18.5 / 28)
    Aim().plan(Budget("layer_average", math.ceil(caught.value.floor)), shape)
    with pytest.raises(BudgetInfeasible):
        Aim().plan(Budget("interface_kept", 8), shape)


@pytest.mark.parametrize(
    "settings",
    [
        {"merge": 0}, {"merge": 1.5}, {"metric": "values"}, {"order": "random"}, {"start": 0}, {"ramp": 1},
        {"start": 25}, {"tau": 0}, {"iterations": 0},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(settings):
    with pytest.raises(PruningError, match=next(iter(settings))):
        Aim(**settings)


# --- running ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def family():
    return Qwen3VL(qwen3_vl())


@pytest.mark.parametrize("grids", [((4, 6),), ((6, 6), (3, 4)), ((6, 6), (1, 1))])
@pytest.mark.parametrize("kind", ["50%", "25%", "native"])
def test_a_model_runs_what_was_planned_and_all_products_but_pageranks_are_counted(family, grids, kind):
    pruner = Aim()
    engine, inputs = Engine(family, pruner), family.inputs(processed(grids))
    k = inputs.shape.n * int(kind.rstrip("%").replace("native", "0")) // 100
    plan = engine.plan(Budget("layer_average" if k else "native", k), inputs.shape)
    with FlopCounterMode(display=False) as counter:
        realised = engine.prefill(inputs, plan).realised
    assert realised.entering == plan.entering and counter.get_total_flops() > 0
    assert not k or abs(plan.layer_average - k) <= 1
    dims = dims_of(family.model.config)
    told = planned_realised(dims, inputs.shape, plan, inputs.text, pruner)
    assert told.selection_flops == realised.selection_flops > 0
    assert any(site.hook == IN_LLM for site in plan.keeps)


def test_it_generates_behind_layers_that_hold_no_visual_token(family):
    inputs = family.inputs(processed(((6, 6), (3, 4))))
    engine = Engine(family, Aim())
    plan = engine.plan(Budget("layer_average", 24), inputs.shape)
    out, trace = engine.generate(inputs, plan, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert out.shape[1] == inputs.text_tokens + trace.realised.entering[0] + 4
    assert trace.realised.entering[-1] == 0


def test_merging_is_counted_as_torch_counts_it():
    tokens, shape = torch.randn(36, 8), shape_of((4, 6), (3, 4))
    with FlopCounterMode(display=False) as counter:
        merged(tokens, 10, (4, 6), (3, 4))
    told = Aim().selection_flops(Site(INTERFACE), 36, 10, 8, shape)
    # 24 -> 12 -> 7 and 12 -> 6 -> 3
    assert told == counter.get_total_flops() == 2 * 8 * (12 * 12 + 6 * 6 + 6 * 6 + 3 * 3)
    assert Aim().selection_flops(Site(IN_LLM, 15), 36, 10, 8, shape) == 0
