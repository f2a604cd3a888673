from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from literal import tome as literal
from tiny import processed, qwen3_vl
from views import shape_of, view_of

from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods.base import IN_VIT, Budget, BudgetInfeasible, PruningError, Shape, Signal, Site
from methods.ops import share
from methods.selection import reduce, reduce_sizes
from methods.tome import ToMe, matched, schedule

SITE = Site(IN_VIT, 0, "attention")
KEYS = Signal("keys", "vit", 0, rope=False)


def flat(n, images=1, cls=False, layers=24):
    """Images of n tokens of one patch each, as a CLIP tower sees them."""
    return Shape(((1, n),) * images, layers, 16, unit_patches=1, vit_cls=cls)


def test_by_hand_the_nearest_pair_becomes_its_mean_and_stands_behind():
    # Rows 0 and 2 look for a partner among 1 and 3. Row 2 finds row 1 at once (cosine 1), row 0 row 3 at 0.6.
    metric = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0], [3.0, 4.0]])
    signals = {KEYS: metric.view(4, 1, 1, 2)}
    selection = ToMe().in_vit(view_of(SITE, torch.zeros(4, 1, 1), 3, flat(4), signals))
    assert selection.keep.tolist() == [0, 1, 3] and selection.assign.tolist() == [0, 1, 1, 2]
    assert selection.key_bias
    rows = torch.tensor([10.0, 20.0, 40.0, 80.0])[:, None, None]
    assert reduce(selection, rows).flatten().tolist() == [10, 30, 80]


def test_a_row_that_stands_for_three_weighs_three_times_as_much():
    metric = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    view = view_of(SITE, torch.zeros(2, 1, 1), 1, flat(2), {KEYS: metric.view(2, 1, 1, 2)})
    selection = ToMe().in_vit(replace(view, size=torch.tensor([3.0, 1.0])))
    assert reduce(selection, torch.tensor([8.0, 4.0])).tolist() == [7]
    assert reduce_sizes(selection, torch.tensor([3.0, 1.0])).tolist() == [4]
    assert not ToMe(proportional=False).in_vit(view).key_bias


def test_behind_cls_the_second_patch_looks_for_the_first():
    metric = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.1], [0.5, 0.5]])
    assert matched(metric, 1, cls=False, raster=False)[0].tolist() == [0, 1, 3]  # 2 joins 1
    keep, slot = matched(metric, 1, cls=True, raster=False)
    assert keep.tolist() == [3, 0, 2] and slot.tolist() == [1, 2, 2, 0]  # 1 joins 2; 3 found nobody and stands first


def test_raster_order_is_the_same_merge_put_in_order():
    metric = torch.randn(31, 8, generator=torch.Generator().manual_seed(0))
    values = torch.arange(31.0)
    for cls in (False, True):
        keep, slot = matched(metric, 12, cls, raster=False)
        ordered, place = matched(metric, 12, cls, raster=True)
        assert ordered.tolist() == sorted(keep.tolist())
        sums = [torch.zeros(19).index_add(0, where, values) for where in (slot, place)]
        assert torch.equal(sums[0][keep.argsort()], sums[1])


@pytest.mark.parametrize("cls", [False, True])
@pytest.mark.parametrize("n", [9, 24, 64])
def test_several_blocks_equal_the_description_line_by_line(n, cls):
    generator = torch.Generator().manual_seed(n)
    tokens = torch.randn(n + cls, 6, generator=generator)
    size, ours, sizes = torch.ones(n + cls, 1), tokens[cls:], torch.ones(n)
    for r in (3, n // 4, n):
        metric = torch.randn(len(tokens), 8, generator=generator)
        tokens, size = literal.merge(metric, r, tokens, size, cls)
        rows = len(ours)
        signals = {KEYS: metric[cls:].view(rows, 1, 1, 8)}
        view = view_of(SITE, ours[:, None], rows - min(r, rows // 2), flat(rows, cls=cls), signals)
        selection = ToMe().in_vit(replace(view, size=sizes))
        ours, sizes = reduce(selection, ours), reduce_sizes(selection, sizes)
        torch.testing.assert_close(ours, tokens[cls:])
        torch.testing.assert_close(sizes, size[cls:, 0])


def test_schedules_are_lines_and_lists():
    assert schedule(5, 8) == [8] * 5
    assert schedule(5, 8, -1.0) == [16, 12, 8, 4, 0]
    assert schedule(4, 5, 0.5) == [2, 4, 6, 8]  # 2, 4, 6, 8 of 2.5, 4.17, 5.83, 7.5: the low end is rounded first
    assert schedule(4, (3, 2)) == [3, 2, 0, 0] and schedule(1, 7) == [7]


def test_the_native_plan_is_the_authors_schedule_for_each_image():
    plan = ToMe(r=8).plan(Budget("native", 0), flat(196, images=2))
    assert list(plan.keeps.values()) == [2 * (196 - 8 * (block + 1)) for block in range(23)] + [12]  # 8 of 12 is > half
    assert plan.entering == (12,) * 16
    clipped = ToMe(r=16).plan(Budget("native", 0), flat(64))  # 64, 48, 32, then halves: 16, 8, 4, 2, 1
    assert list(clipped.keeps.values()) == [48, 32, 16, 8, 4, 2, 1]
    listed = ToMe(r=(8, 0, 4)).plan(Budget("native", 0), flat(64))
    assert {site.layer: k for site, k in listed.keeps.items()} == {0: 56, 2: 52}
    units = ToMe(r=13).plan(Budget("native", 0), shape_of((8, 8)))
    assert list(units.keeps.values()) == [64 - 3 * block for block in range(1, 9)]  # 13 patches are 3 units


def test_an_exact_budget_is_met_along_the_schedules_line():
    plan = ToMe().plan(Budget("layer_average", 32), shape_of((8, 8)))
    assert list(plan.keeps.values()) == [60, 56, 52, 48, 44, 40, 36, 32] and plan.entering == (32,) * 16
    early = ToMe(inflection=-1.0).plan(Budget("layer_average", 32), shape_of((8, 8)))
    assert list(early.keeps.values()) == [56, 49, 43, 39, 35, 33, 32]  # nothing is left for the last block
    assert all(site.after == "attention" for site in plan.keeps)


@pytest.mark.parametrize("grids", [((8, 8),), ((4, 6),), ((5, 3), (4, 4)), ((6, 6), (1, 1)), ((1, 2), (1, 3), (9, 2))])
@pytest.mark.parametrize("settings", [{}, {"inflection": -1.0}, {"inflection": 1.0}, {"granularity": "patch"}])
def test_every_budget_down_to_the_floor_is_met_and_no_image_loses_more_than_half_at_once(grids, settings):
    shape = shape_of(*grids)
    for k in range(1, shape.n):
        try:
            plan = ToMe(**settings).plan(Budget("layer_average", k), shape)
        except BudgetInfeasible as error:
            assert k < error.floor == len(grids)  # 8 blocks can halve 64 units to 1
            continue
        assert plan.layer_average == k
        alive = shape.images
        for total in plan.keeps.values():
            after = share(total, shape.images, least=1)
            assert all(b <= 2 * a for a, b in zip(after, alive, strict=True))
            alive = after


def test_a_floor_says_what_halving_can_reach():
    with pytest.raises(BudgetInfeasible, match=r"2 ViT blocks .* >= 16 of 64") as error:
        ToMe().plan(Budget("layer_average", 15), shape_of((8, 8), vit_layers=2))
    assert error.value.floor == 16


@pytest.mark.parametrize("settings", [{}, {"granularity": "patch"}, {"order": "raster"}, {"proportional": False}])
@pytest.mark.parametrize("grids", [((4, 6),), ((6, 6), (3, 4)), ((6, 6), (1, 1))])
def test_a_model_runs_at_the_budget_asked(settings, grids):
    engine = Engine(Qwen3VL(qwen3_vl()), ToMe(**settings))
    inputs = engine.family.inputs(processed(grids))
    plan = engine.plan(Budget("layer_average", inputs.shape.n // 3), inputs.shape)
    realised = engine.prefill(inputs, plan).realised
    assert realised.entering == (inputs.shape.n // 3,) * 6 == plan.entering
    assert len(realised.sites) == len(plan.keeps) > 4
    assert sum(realised.vit_mlp_tokens[-1]) == 4 * (inputs.shape.n // 3)


def test_merging_with_equal_keys_leaves_all_that_was_seen():
    """Sizes add up to the patches of the image, whatever was merged."""
    model = qwen3_vl()
    sizes = []

    class Watched(ToMe):
        def in_vit(self, view):
            selection = super().in_vit(view)
            sizes.append(float(reduce_sizes(selection, view.size).sum()))
            return selection

    engine = Engine(Qwen3VL(model), Watched(granularity="patch"))
    inputs = engine.family.inputs(processed())
    engine.prefill(inputs, engine.plan(Budget("layer_average", 6), inputs.shape))
    assert sizes == [96.0] * len(sizes) and len(sizes) == 8


@pytest.mark.parametrize("settings", [{"r": -1}, {"r": (4, -1)}, {"inflection": 1.5}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(PruningError, match=f"tome's {next(iter(settings))} takes"):
        ToMe(**settings)
