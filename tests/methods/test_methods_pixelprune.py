from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tiny import processed, qwen3_vl
from views import shape_of, view_of

from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from harness.validate.golden import validate_file
from methods.base import PRE_TOKENIZATION, Budget, BudgetInfeasible, PruningError, Site
from methods.pixelprune import PixelPrune, _anchored, distance

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("pixelprune_*.npz"))


def picture(rows: list[list[float]]) -> torch.Tensor:
    """One grey value a block, (rows, columns, 3)."""
    return torch.tensor(rows, dtype=torch.float32)[..., None].expand(-1, -1, 3)


def test_equal_neighbours_go_and_the_first_block_stays():
    assert PixelPrune().foretold(picture([[0.5, 0.5], [0.5, 0.5]])).tolist() == [0]
    assert PixelPrune().foretold(picture([[0.1, 0.2], [0.3, 0.4]])).tolist() == [0, 1, 2, 3]


def test_an_upright_edge_is_foretold_from_above_and_a_level_one_from_the_left():
    # Upright: row 1 repeats row 0; at its edge C = A, C != B, so the prediction is B, and it holds.
    assert PixelPrune().foretold(picture([[0, 0, 1], [0, 0, 1]])).tolist() == [0, 2]
    # Level: in row 1 C != A for the blocks under the edge, so the prediction is A.
    assert PixelPrune().foretold(picture([[0, 0, 0], [1, 1, 1]])).tolist() == [0, 3]


def test_where_the_corner_is_like_both_or_neither_the_left_one_foretells():
    assert PixelPrune().foretold(picture([[0, 0], [0, 1]])).tolist() == [0, 3]
    assert PixelPrune().foretold(picture([[0, 1], [2, 1]])).tolist() == [0, 1, 2, 3]  # B is right, A is asked
    assert PixelPrune().foretold(picture([[0, 1], [2, 2]])).tolist() == [0, 1, 2]


def test_on_a_ramp_sliding_keeps_the_first_alone_and_anchored_keeps_errors_below_tau():
    ramp = picture([[0.0, 0.25, 0.5, 0.75, 1.0]])
    assert PixelPrune(tau=0.25, anchored=False).foretold(ramp).tolist() == [0]
    assert PixelPrune(tau=0.25).foretold(ramp).tolist() == [0, 2, 4]
    assert PixelPrune(tau=0.5).foretold(ramp).tolist() == [0, 3]


def test_scans_compare_with_the_last_that_stayed_along_their_line():
    rows = picture([[0, 1], [0, 1]])
    assert PixelPrune(scan="raster").foretold(rows).tolist() == [0, 1, 2, 3]
    assert PixelPrune(scan="serpentine").foretold(rows).tolist() == [0, 1, 2]


def test_distances():
    one, other = torch.tensor([0.0, 0.0, 0.0, 0.0]), torch.tensor([0.0, -0.4, 0.2, 0.2])
    assert [round(float(distance(one, other, metric)), 6) for metric in ("max", "mae")] == [0.4, 0.2]
    assert float(distance(one, other, "rmse")) == pytest.approx((0.24 / 4) ** 0.5)


@pytest.mark.parametrize("metric", ["max", "mae", "rmse"])
def test_without_a_threshold_anchored_and_sliding_agree_on_any_picture(metric):
    blocks = torch.randint(0, 3, (9, 7, 3), generator=torch.Generator().manual_seed(0)) / 2
    sliding = PixelPrune(metric=metric, anchored=False).foretold(blocks)
    assert _anchored(blocks, 0.0, metric).tolist() == sliding.tolist()


def test_budgets_keep_the_most_surprising_blocks_nested_the_first_always():
    blocks = torch.rand(5, 6, 12, generator=torch.Generator().manual_seed(0))
    kept = [set(PixelPrune().farthest(blocks, k).tolist()) for k in range(1, 31)]
    assert kept[0] == {0} and all(few < more for few, more in pairwise(kept))
    assert PixelPrune().farthest(picture([[0, 0.1, 0.9, 0.9]]), 2).tolist() == [0, 2]


def test_as_many_as_the_native_rule_keeps_are_the_same_ones():
    blocks = torch.randint(0, 2, (8, 8, 3), generator=torch.Generator().manual_seed(1)).float()
    native = PixelPrune().foretold(blocks)
    assert 1 < len(native) < 64
    assert PixelPrune().farthest(blocks, len(native)).tolist() == native.tolist()


def test_each_image_is_pruned_alone_and_keeps_a_block():
    pixels = torch.rand(36, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    pixels[24:] = 0.5  # the second is flat
    shape, site = shape_of((4, 6), (3, 4)), Site(PRE_TOKENIZATION)
    assert PixelPrune().before_tokenization(view_of(site, pixels, None, shape)).keep.tolist() == list(range(25))
    kept = PixelPrune().before_tokenization(view_of(site, pixels, 18, shape)).keep
    assert (kept < 24).sum() == 12
    shape = shape_of((5, 7), (1, 1))  # a share of 2 of 36 would leave the second without any
    assert PixelPrune().before_tokenization(view_of(site, pixels, 2, shape)).keep.tolist() == [0, 35]


def test_native_runs_plan_no_count_and_the_floor_is_a_block_of_each_image():
    assert PixelPrune().plan(Budget("native", 0), shape_of((4, 4))).keeps == {Site(PRE_TOKENIZATION): None}
    with pytest.raises(BudgetInfeasible, match="2") as caught:
        PixelPrune().plan(Budget("layer_average", 1), shape_of((4, 4), (4, 4)))
    assert caught.value.floor == 2
    with pytest.raises(BudgetInfeasible, match="native"):
        PixelPrune(scan="raster").plan(Budget("layer_average", 8), shape_of((4, 4)))
    with pytest.raises(PruningError, match="tau"):
        PixelPrune(tau=-0.1)


@pytest.mark.parametrize("percent", [50, 33, 22, 11])
def test_a_model_runs_what_was_planned(percent):
    family = Qwen3VL(qwen3_vl())
    engine, inputs = Engine(family, PixelPrune()), family.inputs(processed(((6, 6), (3, 4))))
    k = round(inputs.shape.n * percent / 100)
    realised = engine.prefill(inputs, engine.plan(Budget("layer_average", k), inputs.shape)).realised
    assert realised.entering == (k,) * 6 and realised.selection_flops == 0


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_kept_blocks_equal_the_authors(path):
    assert validate_file(path).status == "pass"


def test_both_modes_and_two_scans_are_among_the_files():
    assert len(GOLDEN) == 7
