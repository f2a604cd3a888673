from __future__ import annotations

import math

import pytest
import torch
from literal.divprune import divprune as literal
from views import shape_of, view_of

from methods.base import INTERFACE, Budget, BudgetInfeasible, PruningError, Site
from methods.divprune import DivPrune, max_min_subset, nearest_neighbour


def select(tokens, k, **settings):
    shape = shape_of((1, len(tokens)))
    return DivPrune(**settings).at_interface(view_of(Site(INTERFACE), tokens, k, shape))


def at_angles(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees])


def test_seed_is_the_token_whose_nearest_neighbour_is_farthest_then_the_farthest_token_follows():
    # Directions 0, 10, 20 and 100 degrees: nearest neighbours at 10, 10, 10, 80; so 100 first. From there the
    # farthest is 0 (100 away); then 10 and 20 are 10 and 20 from 0 and 90, 80 from 100: 20 is next.
    tokens = at_angles(0, 10, 20, 100)
    assert select(tokens, 3, order="selection").keep.tolist() == [3, 0, 2]
    assert select(tokens, 3).keep.tolist() == [0, 2, 3]


def test_length_of_a_token_does_not_matter_only_its_direction():
    tokens = at_angles(0, 10, 20, 100) * torch.tensor([[5.0], [0.1], [3.0], [100.0]])
    assert select(tokens, 3, order="selection").keep.tolist() == [3, 0, 2]


def test_seed_score_is_the_second_smallest_entry_of_each_column_even_when_the_diagonal_is_not_the_smallest():
    distance = torch.tensor([[0.0, 3.0, 1.0], [2.0, 0.5, 4.0], [1.5, 0.2, 0.0]])
    assert nearest_neighbour(distance).tolist() == pytest.approx([1.5, 0.5, 1.0])


def test_ties_go_to_the_lower_index():
    # Four axes: all distances are 1 or 2, so the seed score is 1 for all; opposite directions are farthest.
    tokens = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert select(tokens, 4, order="selection").keep.tolist() == [0, 2, 1, 3]


def test_an_index_is_never_chosen_twice_where_vectors_repeat():
    tokens = at_angles(0, 90).repeat(4, 1)  # two directions, four times each
    kept = select(tokens, 5, order="selection").keep.tolist()
    assert kept[:2] == [0, 1] and len(set(kept)) == 5


def test_a_zero_vector_does_not_poison_the_others():
    tokens = torch.cat([at_angles(0, 10, 20, 100), torch.zeros(1, 2)])
    kept = select(tokens, 3).keep.tolist()
    assert len(set(kept)) == 3 and max(kept) < 5


def test_low_precision_tokens_are_compared_in_float32():
    tokens = torch.randn(40, 16, generator=torch.Generator().manual_seed(1)).half()
    assert select(tokens, 9).keep.tolist() == select(tokens.float(), 9).keep.tolist()


@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 1), (5, 5), (64, 1), (64, 63), (65, 32), (100, 11)])
def test_budget_is_met_exactly_by_distinct_ascending_tokens(n, k):
    kept = select(torch.randn(n, 8, generator=torch.Generator().manual_seed(n)), k).keep
    assert kept.tolist() == sorted(set(kept.tolist())) and len(kept) == k


def test_a_smaller_budget_keeps_a_subset():
    tokens = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    order = select(tokens, 30, order="selection").keep.tolist()
    assert all(select(tokens, k, order="selection").keep.tolist() == order[:k] for k in range(1, 30))


def test_reordering_the_tokens_reorders_the_choice():
    generator = torch.Generator().manual_seed(4)
    tokens, shuffle = torch.randn(30, 8, generator=generator), torch.randperm(30, generator=generator)
    mine = select(tokens[shuffle], 10, order="selection").keep
    assert shuffle[mine].tolist() == select(tokens, 10, order="selection").keep.tolist()


@pytest.mark.parametrize(("n", "k"), [(12, 4), (50, 25), (120, 13), (300, 150), (300, 300)])
def test_running_minimum_chooses_what_the_literal_loop_chooses(n, k):
    tokens = torch.randn(n, 24, generator=torch.Generator().manual_seed(n + k))
    assert max_min_subset(tokens, k).tolist() == literal(tokens, k)


@pytest.mark.parametrize("k", [2, 20, 90])
def test_of_vectors_with_exact_distances_and_many_ties_the_literal_loop_chooses_the_same(k):
    # Signs in 16 dimensions have length 4: every distance is a multiple of 1/8, so that most choices are ties.
    signs = torch.tensor([[1.0 if number >> bit & 1 else -1.0 for bit in range(16)] for number in range(0, 65536, 179)])
    assert max_min_subset(signs, k).tolist() == literal(signs, k)


def test_plan_enters_k_tokens_into_every_layer():
    plan = DivPrune().plan(Budget("layer_average", 7), shape_of((4, 4)))
    assert plan.keeps == {Site(INTERFACE): 7} and plan.entering == (7,) * 16


def test_no_token_at_all_is_refused_with_the_floor():
    with pytest.raises(BudgetInfeasible) as caught:
        DivPrune().plan(Budget("layer_average", 0), shape_of((4, 4)))
    assert caught.value.floor == 1


def test_unknown_settings_are_refused():
    with pytest.raises(PruningError, match="order"):
        DivPrune(order="random")
    with pytest.raises(PruningError, match="ratio"):
        DivPrune(ratio=0)


@pytest.mark.parametrize(("n", "k"), [(15, 4), (14, 4), (18, 4)])  # a quarter is 3.75, 3.5, 4.5: half goes to even
def test_native_count_is_rounded_half_to_even(n, k):
    assert DivPrune(ratio=0.25).plan(Budget("native", 0), shape_of((1, n))).keeps == {Site(INTERFACE): k}
