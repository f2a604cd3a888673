from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import processed, qwen3_vl
from views import shape_of, view_of

from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from harness.validate.golden import validate_file
from methods.base import INTERFACE, Budget, BudgetInfeasible, PruningError, Shape, Signal, Site
from methods.hiprune import HiPrune, anchored, around, received

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("hiprune_*.npz"))


def test_an_anchor_brings_its_four_neighbours_and_the_rest_are_registers():
    # 3 rows of 4. The middle block looks at 5, whose neighbours are 4, 6, 1 and 9; the last block looks at 11, then 5.
    objects = torch.zeros(12).index_fill(0, torch.tensor([5]), 1.0)
    deep = torch.arange(12.0) / 100
    deep[5] = 9
    assert anchored(objects, deep, 4, 1, 6).tolist() == [1, 4, 5, 6, 9, 11]
    assert anchored(objects, deep, 4, 0, 2).tolist() == [5, 11]  # registers alone


def test_neighbours_are_places_in_the_raster_and_clamped_to_the_image():
    assert sorted(around(torch.tensor([3]), 4, 12).tolist()) == [0, 2, 3, 4, 7]  # 4 stands in the next row, -1 is 0
    assert sorted(around(torch.tensor([8]), 4, 12).tolist()) == [4, 7, 8, 9, 11]


def test_where_anchors_and_buffers_are_too_many_anchors_stay_and_the_most_attended_buffers():
    objects = torch.zeros(12).index_fill(0, torch.tensor([0, 5]), 1.0)
    deep = torch.zeros(12)
    deep[[9, 1, 10]] = torch.tensor([0.3, 0.2, 0.9])  # 10 is no neighbour
    assert anchored(objects, deep, 4, 2, 4).tolist() == [0, 1, 5, 9]


@pytest.mark.parametrize("n", [1, 2, 7, 24, 65])
@pytest.mark.parametrize("anchors", [0, 1, 3])
def test_every_budget_is_met_by_distinct_ascending_tokens(n, anchors):
    generator = torch.Generator().manual_seed(n)
    objects, deep = torch.rand(n, generator=generator), torch.rand(n, generator=generator)
    for k in range(1, n + 1):
        kept = anchored(objects, deep, 4, anchors, k).tolist()
        assert kept == sorted(set(kept)) and len(kept) == k


def test_queries_are_all_tokens_of_the_tower_cls_among_them():
    # Four patches receive .2 on average from four patches; CLS gives one of them 1.2: (4 x .2 + 1.2) / 5 = .4.
    shape = Shape(((2, 2),), 23, 32, unit_patches=1, vit_cls=True)
    signals = {
        Signal("rows", "vit", 8, "received"): torch.full((4, 1), 0.2),
        Signal("rows", "vit", 8, "cls"): torch.tensor([[0.2], [1.2], [0.2], [0.2]]),
    }
    view = view_of(Site(INTERFACE), torch.zeros(4, 1), 2, shape, signals)
    torch.testing.assert_close(received(view, 8), torch.tensor([0.2, 0.4, 0.2, 0.2]))


def test_the_middle_block_is_mapped_to_the_tower_and_asked_for_once():
    clip = Shape(((24, 24),), 23, 32, unit_patches=1, vit_cls=True)
    rows = [(block, queries) for block in (8, 22) for queries in ("received", "cls")]
    assert [(need.layer, need.queries) for need in HiPrune().needs(clip)] == rows
    qwen = HiPrune(block=16, depth=32).needs(shape_of((4, 4), vit_layers=32))
    assert [(need.layer, need.queries) for need in qwen] == [(15, "received"), (31, "received")]
    assert len(HiPrune().needs(shape_of((4, 4), vit_layers=1))) == 1


def select(objects: torch.Tensor, deep: torch.Tensor, k: int, *grids: tuple[int, int], **settings) -> list[int]:
    shape, pruner = shape_of(*grids), HiPrune(**settings)
    signals = {need: row[:, None].expand(-1, 4) for need, row in zip(pruner.needs(shape), (objects, deep), strict=True)}
    return pruner.at_interface(view_of(Site(INTERFACE), torch.zeros(len(deep), 2), k, shape, signals)).keep.tolist()


def test_each_image_has_its_own_width_and_share():
    generator = torch.Generator().manual_seed(0)
    objects, deep = torch.rand(36, generator=generator), torch.rand(36, generator=generator)
    both = select(objects, deep, 18, (4, 6), (3, 4), alpha=0.5)
    first = select(objects[:24], deep[:24], 12, (4, 6), alpha=0.5)
    second = select(objects[24:], deep[24:], 6, (3, 4), alpha=0.5)
    assert both == first + [24 + token for token in second]


def test_native_runs_divide_the_authors_total_or_take_a_share():
    native, site = Budget("native", 0), Site(INTERFACE)
    assert HiPrune().plan(native, shape_of((24, 24))).keeps == {site: 192}
    tiled = Shape(((24, 24), (48, 49)), 23, 32, 1, True, tiles=((0, 576, 576), *[(1, 576, 576)] * 4))
    assert HiPrune(tokens=643).plan(native, tiled).keeps == {site: 640}  # 128 of each of five tiles
    assert HiPrune(ratio=0.334).plan(native, shape_of((12, 12))).keeps == {site: 48}


def test_impossible_settings_and_budgets_are_refused():
    for settings in ({"block": 0}, {"block": 25}, {"alpha": 1.1}, {"tokens": 0}, {"ratio": -0.1}):
        with pytest.raises(PruningError, match=next(iter(settings))):
            HiPrune(**settings)
    with pytest.raises(BudgetInfeasible):
        HiPrune().plan(Budget("layer_average", 0), shape_of((4, 4)))


@pytest.mark.parametrize("percent", [50, 33, 22, 11])
def test_a_model_runs_what_was_planned(percent):
    family = Qwen3VL(qwen3_vl())
    engine, inputs = Engine(family, HiPrune(alpha=0.5)), family.inputs(processed(((6, 6), (3, 4))))
    k = round(inputs.shape.n * percent / 100)
    realised = engine.prefill(inputs, engine.plan(Budget("layer_average", k), inputs.shape)).realised
    assert realised.entering == (k,) * 6


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_kept_tokens_equal_the_authors(path):
    assert validate_file(path).status == "pass"


def test_llava_and_qwen_are_among_the_files():
    assert len(GOLDEN) == 8
