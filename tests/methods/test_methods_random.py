from __future__ import annotations

from collections import Counter

import pytest
import torch
from views import shape_of, view_of

from methods.base import INTERFACE, Budget, BudgetInfeasible, Site
from methods.random import Random


def select(n: int, k: int, seed: int) -> list[int]:
    view = view_of(Site(INTERFACE), torch.zeros(n, 2), k, shape_of((1, n)), seed=seed)
    return Random().at_interface(view).keep.tolist()


@pytest.mark.parametrize(("n", "k"), [(1, 1), (4, 1), (4, 4), (64, 7), (577, 288)])
def test_budget_is_met_exactly_by_distinct_ascending_tokens(n, k):
    kept = select(n, k, seed=3)
    assert len(kept) == k and kept == sorted(set(kept)) and set(kept) <= set(range(n))


def test_the_seed_alone_decides():
    assert select(64, 8, seed=1) == select(64, 8, seed=1) != select(64, 8, seed=2)


def test_every_pair_of_four_tokens_is_about_equally_likely():
    counts = Counter(tuple(select(4, 2, seed)) for seed in range(1200))
    assert len(counts) == 6 and all(150 < count < 250 for count in counts.values())  # 200 expected, sd 13


def test_a_native_run_is_refused():
    with pytest.raises(BudgetInfeasible, match="--budget"):
        Random().plan(Budget("native", 0), shape_of((4, 4)))
