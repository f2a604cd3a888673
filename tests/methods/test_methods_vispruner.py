from __future__ import annotations

import math

import pytest
import torch
from literal.vispruner import vispruner as literal
from tiny import processed, qwen3_vl
from views import shape_of, view_of

from harness.flops.prefill import dims_of, planned_realised
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods.base import INTERFACE, Budget, BudgetInfeasible, MissingSignal, PruningError, Shape, Signal, Site
from methods.vispruner import FEATURES, VisPruner, diverse

RECEIVED = Signal("rows", "vit", 7, "received")


def select(tokens, attention, k, *grids, **settings):
    shape = shape_of(*(grids or ((1, len(tokens)),)))
    signals = {RECEIVED: attention if attention.ndim == 2 else attention[:, None].expand(-1, 4)}
    return VisPruner(**settings).at_interface(view_of(Site(INTERFACE), tokens, k, shape, signals)).keep.tolist()


def at_angles(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees])


def test_half_are_the_most_attended_and_of_the_rest_those_with_a_close_partner_go():
    # 0 and 5 are attended most. The rest, most attended first, is 1, 2, 3, 4 at 0, 90, 10 and 170 degrees. Even
    # places: 1 (closest odd one at 90) and 3 (at 80); odd places: 2 and 4. Asked for 4: both 1 and 3 go, 2 and 4 stay.
    tokens = at_angles(45, 0, 90, 10, 170, 45)
    attention = torch.tensor([9.0, 5, 4, 3, 2, 8])
    assert select(tokens, attention, 4) == [0, 2, 4, 5]
    # 5 tokens: two are attended, three diverse; only the even token with the closest partner goes: 3, 80 from 2.
    assert select(tokens, attention, 5) == [0, 1, 2, 4, 5]


def test_the_new_list_is_the_even_survivors_most_similar_first_and_then_the_odd_ones():
    # Ten pairs of equal directions: each even place has its twin at an odd one, all tie, so the first 8 of them go.
    features = torch.nn.functional.one_hot(torch.arange(20) // 2, 10).float()  # exact ties: every cosine is 0 or 1
    assert diverse(features, 12).tolist() == [16, 18, *range(1, 20, 2)]
    # The next list is 16, 18, 1, 3, ... 19: its even places 16, 1, 5, 9, 13, 17 are at right angles to the odd ones, so
    # all tie again and the first two go.
    assert diverse(features, 10).tolist() == [5, 9, 13, 17, 18, 3, 7, 11, 15, 19]


def test_survivors_are_ranked_by_their_closest_partner():
    # Even places 0, 2, 4 at 0, 50, 100 degrees, odd places 1, 3 at 5 and 70: gaps 5, 20, 30. One goes: 0. Then 2, 4.
    assert diverse(at_angles(0, 5, 50, 70, 100), 4).tolist() == [2, 4, 1, 3]
    assert diverse(at_angles(0, 5, 100, 70, 50), 4).tolist() == [4, 2, 1, 3]


def test_at_most_eight_go_at_once_and_an_odd_list_has_the_longer_half_first():
    # 5 rows for 1: three even, so three go at once and 1, 3 are left; then 1 goes.
    assert diverse(at_angles(0, 40, 80, 120, 160), 1).tolist() == [3]


def test_patches_of_a_unit_count_by_their_mean():
    attention = torch.tensor([[9.0, 0, 0, 0], [3, 3, 3, 3], [0, 0, 0, 1]])
    assert select(at_angles(0, 50, 100), attention, 1, important_ratio=1.0) == [1]


def test_all_important_is_top_k_of_attention_and_ties_go_to_the_lower_index():
    attention = torch.tensor([1.0, 2, 2, 2, 0])
    assert select(at_angles(0, 1, 2, 3, 4), attention, 2, important_ratio=1.0) == [1, 2]


def test_without_important_ones_the_diverse_list_starts_with_all():
    tokens = at_angles(0, 5, 50, 70, 100)
    attention = torch.tensor([5.0, 4, 3, 2, 1])
    assert select(tokens, attention, 4, important_ratio=0.0) == [1, 2, 3, 4]


def test_length_of_a_feature_does_not_matter_and_a_zero_vector_does_no_harm():
    generator = torch.Generator().manual_seed(0)
    tokens, attention = torch.randn(40, 8, generator=generator), torch.rand(40, generator=generator)
    scaled = tokens * 2.0 ** torch.randint(-3, 4, (40, 1), generator=generator)
    assert select(tokens, attention, 14) == select(scaled, attention, 14)
    tokens[3] = 0
    assert len(set(select(tokens, attention, 14))) == 14


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("n", [1, 2, 7, 24, 65])
def test_every_budget_is_met_by_distinct_ascending_tokens(n, ratio):
    generator = torch.Generator().manual_seed(n)
    tokens, attention = torch.randn(n, 8, generator=generator), torch.rand(n, generator=generator)
    for k in range(1, n + 1):
        kept = select(tokens, attention, k, important_ratio=ratio)
        assert kept == sorted(set(kept)) and len(kept) == k
        assert kept == select(tokens, attention, k, important_ratio=ratio)


def exact_features(n: int) -> torch.Tensor:
    """Signs in 64 dimensions, a few of them equal: every cosine is a multiple of 1/32, so that partners tie."""
    return torch.randint(0, 2, (n, 64), generator=torch.Generator().manual_seed(n)).float() * 2 - 1


@pytest.mark.parametrize(("n", "k"), [(40, 16), (41, 16), (65, 1), (129, 64), (400, 90)])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_one_product_of_all_features_keeps_what_the_literal_steps_keep(n, k, ratio):
    generator = torch.Generator().manual_seed(n + k)
    attention = torch.randint(0, n // 2, (n,), generator=generator).float()  # ties too
    assert select(exact_features(n), attention, k, important_ratio=ratio) == literal(
        exact_features(n), attention, k, ratio
    )


def test_each_image_is_pruned_alone():
    generator = torch.Generator().manual_seed(3)
    tokens, attention = torch.randn(40, 8, generator=generator), torch.rand(40, generator=generator)
    attention[:24] *= 100  # the first image draws all attention, and gets no more than its share
    kept = select(tokens, attention, 20, (4, 6), (4, 4))
    first, second = select(tokens[:24], attention[:24], 12), select(tokens[24:], attention[24:], 8)
    assert kept == first + [24 + token for token in second]


def test_a_vit_with_cls_is_asked_for_its_row_and_single_patches_for_their_features():
    with_cls = Shape(((24, 24),), 24, 32, unit_patches=1, vit_cls=True)
    assert VisPruner().needs(with_cls) == (Signal("rows", "vit", 23, "cls"), FEATURES)
    assert VisPruner().needs(shape_of((4, 6))) == (RECEIVED,)
    with pytest.raises(MissingSignal):
        VisPruner().at_interface(view_of(Site(INTERFACE), torch.ones(4, 2), 2, shape_of((2, 2))))


def test_native_runs_keep_the_authors_count_of_each_image_or_all_it_has():
    native = Budget("native", 0)
    assert VisPruner().plan(native, shape_of((24, 24), (4, 4))).keeps == {Site(INTERFACE): 144}
    assert VisPruner(tokens=32).plan(native, shape_of((24, 24))).entering == (32,) * 16


def test_no_token_at_all_and_impossible_settings_are_refused():
    with pytest.raises(BudgetInfeasible):
        VisPruner().plan(Budget("layer_average", 0), shape_of((4, 4)))
    with pytest.raises(PruningError, match="important_ratio"):
        VisPruner(important_ratio=1.5)
    with pytest.raises(PruningError, match="tokens"):
        VisPruner(tokens=0)


def test_only_the_product_of_the_diverse_candidates_is_counted_image_by_image():
    # Images of 24 and 12 tokens share 18 as 12 and 6; 6 and 3 are attended, so 18 and 9 are compared in 5 channels.
    flops = VisPruner().selection_flops(Site(INTERFACE), 36, 18, 5, shape_of((4, 6), (3, 4)))
    assert flops == 2 * 5 * (18**2 + 9**2)
    assert VisPruner(1.0).selection_flops(Site(INTERFACE), 36, 18, 5, shape_of((4, 6), (3, 4))) == 0
    assert VisPruner().selection_flops(Site(INTERFACE), 24, 24, 5, shape_of((4, 6))) == 0


@pytest.mark.parametrize("grids", [((4, 6),), ((6, 6), (3, 4)), ((6, 6), (1, 1))])
@pytest.mark.parametrize("percent", [50, 25])
def test_a_model_runs_what_was_planned(grids, percent):
    family, pruner = Qwen3VL(qwen3_vl()), VisPruner()
    engine, inputs = Engine(family, pruner), family.inputs(processed(grids))
    k = inputs.shape.n * percent // 100
    plan = engine.plan(Budget("layer_average", k), inputs.shape)
    realised = engine.prefill(inputs, plan).realised
    assert realised.entering == plan.entering == (k,) * 6
    told = planned_realised(dims_of(family.model.config), inputs.shape, plan, inputs.text, pruner)
    assert told.selection_flops == realised.selection_flops > 0
