from __future__ import annotations

import pytest
import torch
from tiny import processed, qwen3_vl
from views import shape_of, view_of

from harness.flops.prefill import dims_of, planned_realised
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods.base import INTERFACE, Budget, BudgetInfeasible, Site
from methods.pool import Pool, pooled, split
from methods.selection import reduce, reduce_sizes


def select(k, *grids, hidden=None):
    shape = shape_of(*grids)
    hidden = torch.arange(float(shape.n))[:, None] if hidden is None else hidden
    selection = Pool().at_interface(view_of(Site(INTERFACE), hidden, k, shape))
    return selection, hidden


def test_four_tokens_of_a_four_by_four_grid_are_means_of_its_quarters():
    # Cells 0..15. Upper left quarter: 0, 1, 4, 5, mean 2.5; then 4.5 to the right of it, 10.5 and 12.5 below.
    selection, hidden = select(4, (4, 4))
    assert reduce(selection, hidden).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert selection.keep.tolist() == [0, 2, 8, 10]


def test_three_tokens_of_a_two_by_six_grid_are_three_squares():
    # A third of 6 columns is 2: columns 0, 1 are one square; of the other four columns two tokens take two each.
    assert split((0, 0, 2, 6), 3) == [(0, 0, 2, 2), (0, 2, 2, 2), (0, 4, 2, 2)]


def test_the_longer_side_is_cut_and_columns_where_both_are_equal():
    assert split((0, 0, 4, 2), 2) == [(0, 0, 2, 2), (2, 0, 2, 2)]
    assert split((0, 0, 2, 2), 2) == [(0, 0, 2, 1), (0, 1, 2, 1)]


def test_a_part_never_gets_more_tokens_than_cells():
    # 3 x 3 for 9: half of the tokens is 4, but the first 4/9 of 3 columns is one column of 3 cells.
    assert sorted(split((0, 0, 3, 3), 9)) == [(row, column, 1, 1) for row in range(3) for column in range(3)]


def test_a_mean_stands_in_the_middle_of_its_rectangle():
    centre, cell = pooled(3, 5, 1)
    assert centre.tolist() == [7] and cell.tolist() == [0] * 15


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (7, 1), (3, 3), (4, 6), (8, 5), (16, 16), (24, 24)])
def test_every_budget_tiles_the_grid_in_exactly_that_many_rectangles(grid):
    rows, columns = grid
    for k in range(1, rows * columns + 1):
        rectangles = split((0, 0, rows, columns), k)
        assert len(rectangles) == k
        covered = torch.zeros(rows, columns)
        for top, left, height, width in rectangles:
            assert height > 0 and width > 0
            covered[top : top + height, left : left + width] += 1
        assert bool((covered == 1).all())


@pytest.mark.parametrize("grid", [(24, 24), (16, 28)])
def test_rectangles_stay_even(grid):
    for k in range(1, grid[0] * grid[1] // 4):  # four cells and more each: rounding to cells can double a side
        sides = [(height, width) for _, _, height, width in split((0, 0, *grid), k)]
        areas = [height * width for height, width in sides]
        assert max(areas) <= 4 * min(areas)
        assert all(max(side) <= 4 * min(side) for side in sides)


def test_all_tokens_together_keep_their_mean():
    hidden = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
    selection, _ = select(7, (4, 6), hidden=hidden)
    sizes = reduce_sizes(selection, torch.ones(24))
    assert sizes.sum() == 24
    torch.testing.assert_close((reduce(selection, hidden) * sizes[:, None]).sum(0), hidden.sum(0))


def test_each_image_is_pooled_alone_and_gets_its_share():
    selection, hidden = select(3, (2, 4), (2, 2))
    assert reduce(selection, hidden).flatten().tolist() == [2.5, 4.5, 9.5]
    alone, _ = select(2, (2, 4))
    assert selection.keep[:2].tolist() == alone.keep.tolist()


def test_an_image_without_a_share_is_dropped_and_spoils_no_mean():
    selection, hidden = select(1, (4, 4), (1, 1))
    assert reduce(selection, hidden).flatten().tolist() == [7.5]
    assert selection.assign.tolist() == [0] * 16 + [-1]


def test_the_same_tokens_come_out_every_time_whatever_the_content():
    one, _ = select(9, (5, 7))
    other, _ = select(9, (5, 7), hidden=torch.randn(35, 2))
    assert torch.equal(one.keep, other.keep) and torch.equal(one.assign, other.assign)


def test_pool_has_no_budget_of_its_own():
    with pytest.raises(BudgetInfeasible):
        Pool().plan(Budget("native", 0), shape_of((4, 4)))


@pytest.mark.parametrize("grids", [((4, 6),), ((6, 6), (3, 4))])
@pytest.mark.parametrize("percent", [50, 25])
def test_a_model_runs_what_was_planned(grids, percent):
    family, pruner = Qwen3VL(qwen3_vl()), Pool()
    engine, inputs = Engine(family, pruner), family.inputs(processed(grids))
    k = inputs.shape.n * percent // 100
    plan = engine.plan(Budget("layer_average", k), inputs.shape)
    realised = engine.prefill(inputs, plan).realised
    assert realised.entering == plan.entering == (k,) * 6
    told = planned_realised(dims_of(family.model.config), inputs.shape, plan, inputs.text, pruner)
    assert told.selection_flops == realised.selection_flops == 0
