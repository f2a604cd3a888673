from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from cls_tower import batch, family_with_cls
from tiny import processed, qwen3_vl
from torch.utils.flop_counter import FlopCounterMode
from views import view_of

import methods
from harness.flops.prefill import dims_of, planned_realised
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods.base import IN_VIT, INTERFACE, Budget, BudgetInfeasible, MissingSignal, PruningError, Shape, Signal, Site
from methods.selection import reduce, reduce_sizes
from methods.visionzip import VisionZip, zipped

FACE = Site(INTERFACE)


@pytest.fixture(scope="module")
def family():
    return family_with_cls()


def at_angles(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees])


def llava(*grids: tuple[int, int], **more) -> Shape:
    return Shape(grids, 23, 32, unit_patches=1, vit_cls=True, **more)


def select(score, keys, k, *grids, hidden=None, **settings):
    """What the interface's hook decides. score: (n,) or (n, g); keys: (n, w) or (n, g, h, w)."""
    pruner, shape = VisionZip(**settings), Shape(grids or ((1, len(score)),), 8, 16)
    attention, metric = pruner.needs(shape)
    score = score if score.ndim == 2 else score[:, None].expand(-1, 4)
    keys = keys if keys.ndim == 4 else keys[:, None, None]
    hidden = torch.zeros(len(score), 4) if hidden is None else hidden
    return pruner.at_interface(view_of(FACE, hidden, k, shape, {attention: score, metric: keys}))


def test_what_is_not_dominant_joins_the_target_with_the_closest_key():
    # Dominant: 1 and 4. The rest is 0, 2, 3, 5, 6, 7; two targets, every third: 0 (at 0 degrees) and 5 (at 90).
    # 2 (at 30) joins 0; 3 (50), 6 (100) and 7 (200) join 5.
    score = torch.tensor([0.1, 0.9, 0.2, 0.3, 0.8, 0.1, 0.2, 0.3])
    one = zipped(score, at_angles(0, 0, 30, 50, 0, 90, 100, 200), dominant=2, contextual=2)
    assert one.keep.tolist() == [1, 4, 0, 5]
    assert one.assign.tolist() == [2, 0, 2, 3, 1, 3, 3, 3]
    assert one.weight.tolist() == pytest.approx([1, 1, 1, 1 / 3, 1, 1, 1 / 3, 1 / 3])


def test_a_contextual_token_is_its_target_plus_the_mean_of_the_others_or_the_plain_mean():
    score, keys = torch.tensor([0.0, 0, 0, 1]), at_angles(0, 10, 20, 0)
    values = torch.tensor([[1.0], [2], [6], [9]])
    assert reduce(zipped(score, keys, 1, 1), values).flatten().tolist() == [9, 1 + (2 + 6) / 2]
    assert reduce(zipped(score, keys, 1, 1, include_target_in_mean=True), values).flatten().tolist() == [9, 3]
    alone = zipped(score, at_angles(0, 180, 180, 0), 1, 2)  # targets 0 and 1: nothing joins 0, 2 joins 1
    assert reduce(alone, values).flatten().tolist() == [9, 1, 2 + 6]


def test_targets_stand_in_equal_steps_and_the_bottom_of_a_picture_may_have_none():
    score = torch.zeros(11)
    assert zipped(score, at_angles(*[0] * 11), 0, 3).keep.tolist() == [0, 3, 6]
    assert zipped(score, at_angles(*[0] * 11), 0, 7).keep.tolist() == list(range(7))  # step 1: the first ones


def test_without_contextual_tokens_the_rest_is_dropped():
    one = zipped(torch.tensor([3.0, 1, 2]), at_angles(0, 0, 0), 2, 0)
    assert one.keep.tolist() == [0, 2] and one.assign.tolist() == [0, -1, 1]


def test_ties_go_to_the_lower_index():
    assert zipped(torch.ones(4), at_angles(0, 0, 0, 0), 2, 1).keep.tolist() == [0, 1, 2]
    joined = zipped(torch.zeros(4), at_angles(0, 0, 0, 0), 0, 2)  # targets 0 and 2 are equally close to 1 and 3
    assert joined.assign.tolist() == [0, 0, 1, 0]


def test_behind_the_projector_contextual_tokens_stand_where_their_targets_stood():
    # 28 tokens shared 13 to 1: 26 dominant, 2 contextual. Only the first 4 attract nobody; targets are 0 and 2.
    score = torch.ones(30).index_fill(0, torch.tensor([0, 1, 2, 3]), 0.0)
    keys = at_angles(0, 10, 90, 100, *[45] * 26)
    selection = select(score, keys, 28)
    assert selection.keep.tolist() == [0, 2, *range(4, 30)]
    assert selection.assign.tolist() == [0, 0, 1, 1, *range(2, 28)]
    assert reduce_sizes(selection, torch.ones(30)).tolist() == [2, 2, *[1] * 26]


def test_attention_and_keys_of_a_unit_are_the_means_of_its_patches():
    score = torch.tensor([[9.0, 0, 0, 0], [3, 3, 3, 3], [0, 0, 0, 1], [0, 0, 0, 0]])
    a = at_angles(0, 50, 0, 100)
    two_patches_and_heads = torch.stack([torch.stack([a + 3, a], 1), torch.stack([a - 4, a + 1], 1)], dim=1)
    for keys in (a, two_patches_and_heads):
        selection = select(score, keys, 3)  # one contextual token, two dominant: 1 and 0; target 2
        assert selection.keep.tolist() == [0, 1, 2] and selection.assign.tolist() == [0, 1, 2, 2]


def test_each_image_is_zipped_alone():
    generator = torch.Generator().manual_seed(3)
    score, keys = torch.rand(40, generator=generator), torch.randn(40, 8, generator=generator)
    score[:24] += 5
    both = select(score, keys, 20, (4, 6), (4, 4))
    first, second = select(score[:24], keys[:24], 12), select(score[24:], keys[24:], 8)
    assert both.keep.tolist() == [*first.keep.tolist(), *(24 + second.keep).tolist()]
    assert both.assign.tolist() == [
        *first.assign.tolist(),
        *torch.where(second.assign < 0, -1, second.assign + 12).tolist(),
    ]
    assert torch.equal(both.weight, torch.cat([first.weight, second.weight]))


@pytest.mark.parametrize("n", [1, 2, 7, 24, 65])
@pytest.mark.parametrize("in_front", [False, True])
def test_every_budget_is_met_and_every_slot_holds_its_representative(n, in_front):
    shape = llava((1, n)) if in_front else Shape(((1, n),), 8, 16)
    generator, pruner = torch.Generator().manual_seed(n), VisionZip()
    attention, metric = pruner.needs(shape)
    signals = {attention: torch.rand(n, 1, generator=generator), metric: torch.randn(n, 1, 2, 8, generator=generator)}
    for k in range(2 if in_front else 1, n):
        plan = pruner.plan(Budget("layer_average", k), shape)
        site, asked = next(iter(plan.keeps.items()))
        assert plan.entering[0] == k == asked + in_front and plan.keeps[FACE] == k
        view = view_of(site, torch.zeros(n, 1, 4), asked, shape, signals)
        selection = (pruner.in_vit if in_front else pruner.at_interface)(view)
        selection.validate(n, asked)
        assert selection.keep.unique().shape == (asked,)
        assert selection.assign[selection.keep].tolist() == list(range(asked))
        assert in_front or selection.keep.tolist() == sorted(selection.keep.tolist())


# --- counts ---------------------------------------------------------------------------------------------------------

NATIVE = Budget("native", 0)


@pytest.mark.parametrize(("preset", "dominant", "contextual"), [("", 54, 10), (":128", 108, 20), (":192", 162, 30)])
def test_in_front_of_the_projector_cls_is_one_of_the_dominant_tokens(preset, dominant, contextual):
    pruner, shape = methods.build(f"visionzip{preset}"), llava((24, 24))
    plan, k = pruner.plan(NATIVE, shape), dominant + contextual
    assert plan.keeps == {Site(IN_VIT, 22): k - 1, FACE: k} and plan.entering == (k,) * 32
    assert pruner._counts(k - 1, shape) == [(dominant - 1, contextual)]
    assert VisionZip()._counts(k - 1, shape) == [(dominant - 1, contextual)]  # 10 of 64, asked for exactly
    assert pruner.plan(NATIVE, llava((24, 24), (24, 24))).entering[0] == 2 * k
    assert pruner.plan(NATIVE, llava((3, 3))).entering[0] == 9
    assert VisionZip()._counts(9, llava((10, 10))) == [(7, 2)]  # 10 of 64 of ten, CLS included
    assert VisionZip()._counts(3, llava((8, 8), (1, 1), (1, 1))) == [(1, 0)] * 3


def test_behind_the_projector_counts_are_cut_off_shares():
    shape = Shape(((8, 12), (7, 10)), 32, 28)
    assert VisionZip()._native(shape) == [(62, 4), (45, 3)]  # 62.4 and 4.8 of 96, 45.5 and 3.5 of 70
    assert VisionZip().plan(NATIVE, shape).keeps == {FACE: 114}
    assert VisionZip()._native(Shape(((2, 2),), 32, 28)) == [(2, 1)]  # one contextual token at least
    assert VisionZip()._counts(56, Shape(((10, 10),), 32, 28)) == [(52, 4)]  # 13 to 1
    assert methods.build("visionzip:qwen-50")._native(Shape(((10, 10),), 32, 28)) == [(45, 5)]


def test_signals_are_those_of_the_last_block():
    assert VisionZip().needs(llava((4, 4))) == (Signal("rows", "vit", 22, "cls"), Signal("keys", "vit", 22))
    assert VisionZip().needs(Shape(((4, 4),), 8, 6))[0] == Signal("rows", "vit", 7, "received")
    internvl = Shape(((4, 4),), 24, 32, vit_cls=True)  # four patches a unit: CLS only looks
    assert VisionZip().needs(internvl)[0] == Signal("rows", "vit", 23, "cls")
    assert list(VisionZip().plan(Budget("layer_average", 8), internvl).keeps) == [FACE]
    with pytest.raises(MissingSignal):
        VisionZip().at_interface(view_of(FACE, torch.ones(4, 2), 2, Shape(((2, 2),), 8, 6)))


def test_floors_and_impossible_settings():
    with pytest.raises(BudgetInfeasible):
        VisionZip().plan(Budget("layer_average", 0), Shape(((4, 4),), 8, 6))
    with pytest.raises(BudgetInfeasible, match="CLS") as caught:
        VisionZip().plan(Budget("layer_average", 3), llava((4, 4), (4, 4)))
    assert caught.value.floor == 4
    for settings in ({"dominant": 0}, {"contextual": 0}, {"dominant_ratio": 0.97}, {"contextual_ratio": 0.0}):
        with pytest.raises(PruningError, match=next(iter(settings))):
            VisionZip(**settings)


def test_the_products_with_the_targets_are_counted():
    shape = Shape(((4, 6), (3, 4)), 8, 16, vit_head_width=8)
    with FlopCounterMode(display=False) as counter:
        select(torch.rand(36), torch.randn(36, 8), 20, (4, 6), (3, 4))
    # Shares of 20: 13 and 7, with 1 contextual token each (13 and 7 of 14, rounded); 24 - 12 and 12 - 6 are compared.
    told = VisionZip().selection_flops(FACE, 36, 20, 99, shape)
    assert told == counter.get_total_flops() == 2 * 8 * (12 + 6)


# --- in models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grids", [((4, 6),), ((6, 6), (3, 4)), ((6, 6), (1, 1))])
@pytest.mark.parametrize("percent", [None, 50, 25])
def test_a_model_runs_what_was_planned(grids, percent):
    qwen = Qwen3VL(qwen3_vl())
    engine, inputs = Engine(qwen, VisionZip()), qwen.inputs(processed(grids))
    budget = Budget("layer_average", inputs.shape.n * percent // 100) if percent else NATIVE
    plan = engine.plan(budget, inputs.shape)
    realised = engine.prefill(inputs, plan).realised
    assert realised.entering == plan.entering and len(set(plan.entering)) == 1
    told = planned_realised(dims_of(qwen.model.config), inputs.shape, plan, inputs.text, engine.pruner)
    assert told.selection_flops == realised.selection_flops > 0


@pytest.mark.parametrize("grids", [((3, 4),), ((3, 4), (2, 3))])
def test_a_tower_with_cls_hands_it_and_the_zipped_patches_to_the_llm(family, grids):
    pruner, inputs = VisionZip(), family.inputs(batch(grids))
    engine = Engine(family, pruner)
    plan = engine.plan(Budget("layer_average", inputs.shape.n // 2), inputs.shape)
    realised = engine.prefill(inputs, plan).realised
    assert realised.entering == plan.entering == (inputs.shape.n // 2,) * 6
    assert realised.merged_units == inputs.shape.n // 2
    dims = replace(dims_of(family.model.config), vit_prefix_tokens=1)
    told = planned_realised(dims, inputs.shape, plan, inputs.text, pruner)
    assert told == replace(realised, kept={}) and realised.selection_flops > 0


@torch.no_grad()
def test_patches_are_merged_in_front_of_the_projector_and_cls_goes_through_it(family):
    inputs, seen = family.inputs(batch(((3, 4),))), {}

    class Looking(VisionZip):
        def in_vit(self, view):
            seen["zipped"] = reduce(super().in_vit(view), view.hidden)
            return super().in_vit(view)

        def at_interface(self, view):
            seen["tokens"] = view.hidden
            return super().at_interface(view)

    engine = Engine(family, Looking())
    engine.prefill(inputs, engine.plan(Budget("layer_average", 6), inputs.shape))
    state = family.embed(inputs, None)
    for number in range(family.vit_layers):
        state = family.run_mlp(number, family.run_attention(number, state))
    rows = torch.cat([state.hidden[:1], seen["zipped"][:, 0]])
    torch.testing.assert_close(seen["tokens"], family.visual.merger(rows), atol=1e-5, rtol=1e-5)
