from __future__ import annotations

import pytest
import torch
from views import shape_of, view_of

from methods.base import INTERFACE, Budget, BudgetInfeasible, Site
from methods.grid import Grid, evenly


def test_four_of_sixteen_are_the_centres_of_the_quarters():
    # Rows floor((i + 1/2) * 4 / 2) = 1, 3; columns likewise: (1,1) (1,3) (3,1) (3,3).
    assert evenly(4, 4, 4).tolist() == [5, 7, 13, 15]


def test_one_token_is_the_middle_one():
    assert evenly(5, 7, 1).tolist() == [2 * 7 + 3]


def test_five_of_sixteen_use_two_rows_of_two_and_three():
    # round(sqrt(5)) = 2 rows (1 and 3); 2 tokens at columns 1, 3 and 3 at floor(4/6), floor(12/6), floor(20/6).
    assert evenly(4, 4, 5).tolist() == [5, 7, 12, 14, 15]


def test_a_wide_grid_gets_more_columns_than_rows():
    # round(sqrt(4 * 2 / 8)) = 1 row, the second; columns floor((j + 1/2) * 2) = 1, 3, 5, 7.
    assert evenly(2, 8, 4).tolist() == [9, 11, 13, 15]


@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (9, 1), (2, 3), (5, 7), (8, 8), (3, 40)])
def test_every_k_gives_exactly_k_distinct_ascending_tokens(grid):
    for k in range(grid[0] * grid[1] + 1):
        kept = evenly(*grid, k).tolist()
        assert len(kept) == k and kept == sorted(set(kept)) and all(0 <= i < grid[0] * grid[1] for i in kept)


def test_kept_tokens_are_balanced_around_the_centre_and_reach_every_side():
    for k in range(4, 65):
        kept = evenly(8, 8, k)
        row, column = (kept // 8).float(), (kept % 8).float()
        assert abs(row.mean() - 3.5) <= 1 and abs(column.mean() - 3.5) <= 1, k
        assert row.min() <= 2 and row.max() >= 5 and column.min() <= 2 and column.max() >= 5, k


def test_each_image_gets_its_share_of_the_budget():
    shape = shape_of((2, 2), (4, 4))
    kept = Grid().at_interface(view_of(Site(INTERFACE), torch.zeros(20, 1), 5, shape)).keep
    assert kept.tolist() == [3, *(4 + i for i in (5, 7, 13, 15))]


def test_a_native_run_is_refused():
    with pytest.raises(BudgetInfeasible, match="--budget"):
        Grid().plan(Budget("native", 0), shape_of((4, 4)))
