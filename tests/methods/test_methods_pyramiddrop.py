from __future__ import annotations

import pytest
import torch
from tiny import processed, qwen3_vl
from views import shape_of, view_of

from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods.base import IN_LLM, Budget, BudgetInfeasible, MissingSignal, PruningError, Signal, Site
from methods.pyramiddrop import PyramidDrop, geometric_counts


def score_at(layer: int) -> Signal:
    return Signal("rows", tower="llm", layer=layer, queries="last", at=layer)


def plan_of(n: int, tokens: int, layers: int = 32):
    return PyramidDrop().plan(Budget("layer_average", tokens), shape_of((1, n), llm_layers=layers))


def test_the_tokens_that_the_next_layer_attends_to_stay_in_their_order():
    signals = {score_at(8): torch.tensor([0.1, 0.4, 0.2, 0.3])}
    view = view_of(Site(IN_LLM, 8), torch.zeros(4, 3), 2, shape_of((1, 4), llm_layers=32), signals)
    selection = PyramidDrop().in_llm(view)
    assert selection.keep.tolist() == [1, 3]
    assert selection.assign is None and not selection.key_bias


def test_ties_go_to_the_lower_index():
    signals = {score_at(16): torch.tensor([0.1, 0.3, 0.3, 0.3])}
    view = view_of(Site(IN_LLM, 16), torch.zeros(4, 3), 2, shape_of((1, 4), llm_layers=32), signals)
    assert PyramidDrop().in_llm(view).keep.tolist() == [1, 2]


def test_each_site_looks_at_the_layer_that_is_about_to_run():
    assert PyramidDrop().needs(shape_of((2, 2), llm_layers=32)) == (score_at(8), score_at(16), score_at(24))


def test_a_score_of_another_site_is_not_taken():
    view = view_of(Site(IN_LLM, 16), torch.zeros(4, 3), 2, shape_of((1, 4)), {score_at(8): torch.zeros(4)})
    with pytest.raises(MissingSignal, match="16"):
        PyramidDrop().in_llm(view)


def test_native_halves_576_at_each_quarter_of_the_depth():
    plan = PyramidDrop().plan(Budget("native", 0), shape_of((24, 24), llm_layers=32))
    assert plan.keeps == {Site(IN_LLM, 8): 288, Site(IN_LLM, 16): 144, Site(IN_LLM, 24): 72}
    assert plan.entering == (576,) * 8 + (288,) * 8 + (144,) * 8 + (72,) * 8
    assert plan.layer_average == 270  # 576 x (1 + 1/2 + 1/4 + 1/8) / 4


def test_native_counts_are_cut_off_not_rounded():
    plan = PyramidDrop().plan(Budget("native", 0), shape_of((1, 15), llm_layers=32))
    assert list(plan.keeps.values()) == [7, 3, 1]  # 7.5, 3.75, 1.875


def test_192_of_576_is_a_rate_of_0_2531():
    plan = plan_of(576, 192)
    assert list(plan.keeps.values()) == [146, 37, 9]  # 576 + 146 + 37 + 9 = 4 x 192
    assert plan.layer_average == 192


@pytest.mark.parametrize(("layers", "sites"), [(32, (8, 16, 24)), (28, (7, 14, 21)), (16, (4, 8, 12)), (6, (2, 3, 4))])
def test_layers_are_mapped_to_the_depth_of_the_model(layers, sites):
    assert tuple(site.layer for site in PyramidDrop().sites(shape_of((2, 2), llm_layers=layers))) == sites


def test_below_a_quarter_no_schedule_helps_and_the_floor_is_named():
    with pytest.raises(BudgetInfeasible, match="144") as caught:
        plan_of(576, 143)
    assert caught.value.floor == 144
    assert plan_of(576, 144).entering == (576,) * 8 + (0,) * 24


def test_an_earlier_schedule_reaches_lower():
    pruner = PyramidDrop(layers=(2, 8, 16))
    plan = pruner.plan(Budget("layer_average", 128), shape_of((24, 24), llm_layers=32))
    assert abs(plan.layer_average - 128) < 0.5


def test_an_interface_budget_is_refused_since_all_tokens_enter_layer_0():
    with pytest.raises(BudgetInfeasible, match="layer_average"):
        PyramidDrop().plan(Budget("interface_kept", 100), shape_of((24, 24), llm_layers=32))


@pytest.mark.parametrize("layers", [16, 28, 32])
@pytest.mark.parametrize("n", [4, 7, 64, 169, 576, 2880])
def test_every_budget_above_the_floor_is_met_within_half_a_token(n, layers):
    for tokens in sorted({n // 4 + 1, n // 3 + 1, n // 2, (2 * n) // 3, n - 1} - {0}):
        if tokens * 4 < n or tokens >= n:
            continue
        plan = plan_of(n, tokens, layers)
        assert abs(plan.layer_average - tokens) <= 0.5
        assert len(plan.entering) == layers
        assert list(plan.entering) == sorted(plan.entering, reverse=True)
        assert all(plan.entering[site.layer] == k for site, k in plan.keeps.items())


def test_stages_that_drop_nothing_are_not_planned():
    plan = plan_of(5, 4, layers=32)  # 5, then a rate of 0.86: 4.3, 3.7, 3.2 of 8 layers each
    assert plan.keeps == {Site(IN_LLM, 8): 4, Site(IN_LLM, 24): 3}


def test_geometric_counts_by_hand():
    assert geometric_counts(8, 8 * 7, [8, 8, 8]) == (4, 2, 1)  # a rate of one half
    assert geometric_counts(8, 0, [8, 8, 8]) == (0, 0, 0)
    assert geometric_counts(8, 8 * 24, [8, 8, 8]) == (8, 8, 8)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"layers": (8, 8, 24)}, "layers"),
        ({"layers": (0, 8, 16)}, "layers"),
        ({"layers": (8, 16, 32)}, "layers"),
        ({"layers": ()}, "layers"),
        ({"ratios": (0.5, 0.25)}, "ratios"),
        ({"ratios": (0.5, 0.6, 0.1)}, "ratios"),
        ({"ratios": (1.5, 0.6, 0.1)}, "ratios"),
    ],
)
def test_settings_out_of_range_are_refused(settings, word):
    with pytest.raises(PruningError, match=word):
        PyramidDrop(**settings)


@pytest.fixture(scope="module")
def family() -> Qwen3VL:
    return Qwen3VL(qwen3_vl(llm_layers=16))


@pytest.mark.parametrize("grids", [((4, 6),), ((3, 4), (6, 6))])
@pytest.mark.parametrize("share", [0.5, 0.25])
def test_a_model_sees_what_was_planned(family, grids, share):
    engine, inputs = Engine(family, PyramidDrop()), family.inputs(processed(grids))
    tokens = round(inputs.shape.n * share)
    plan = engine.plan(Budget("layer_average", tokens), inputs.shape)
    first, again = engine.prefill(inputs, plan), engine.prefill(inputs, plan)
    assert first.realised.entering == plan.entering
    assert abs(plan.layer_average - tokens) <= 1
    assert torch.equal(first.logits, again.logits) and first.realised.kept == again.realised.kept
