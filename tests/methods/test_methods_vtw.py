from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import processed, qwen3_vl
from views import shape_of, view_of

from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from harness.validate.golden import validate_file
from methods.base import IN_LLM, Budget, BudgetInfeasible, PruningError, Site
from methods.vtw import VTW

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("vtw_*.npz"))


def test_native_runs_drop_all_visual_tokens_at_the_mapped_layer():
    plan = VTW().plan(Budget("native", 0), shape_of((24, 24), llm_layers=32))
    assert plan.keeps == {Site(IN_LLM, 15): 0}
    assert plan.entering == (576,) * 15 + (0,) * 17 and plan.layer_average == 270
    assert VTW().plan(Budget("native", 0), shape_of((4, 4), llm_layers=28)).keeps == {Site(IN_LLM, 13): 0}


@pytest.mark.parametrize(("asked", "layer", "rest"), [(288, 16, 0), (192, 10, 384), (128, 7, 64), (64, 3, 320)])
def test_what_a_whole_layer_does_not_divide_stays_for_one_layer_more(asked, layer, rest):
    plan = VTW().plan(Budget("layer_average", asked), shape_of((24, 24), llm_layers=32))
    assert plan.layer_average == asked
    assert plan.keeps == ({Site(IN_LLM, layer): rest, Site(IN_LLM, layer + 1): 0} if rest else {Site(IN_LLM, layer): 0})


def test_what_stays_for_the_last_layer_is_not_dropped_behind_it():
    plan = VTW().plan(Budget("layer_average", 575), shape_of((24, 24), llm_layers=32))
    assert plan.keeps == {Site(IN_LLM, 31): 544} and plan.layer_average == 575


def kept(n: int, keep: int) -> list[int]:
    return VTW().in_llm(view_of(Site(IN_LLM, 3), torch.zeros(n, 2), keep, shape_of((1, n)))).keep.tolist()


def test_the_rest_is_spread_evenly():
    assert kept(12, 3) == [2, 6, 10]
    assert kept(5, 2) == [1, 3]
    assert kept(7, 7) == [0, 1, 2, 3, 4, 5, 6]
    assert kept(7, 0) == []


@pytest.mark.parametrize("n", [1, 2, 9, 40])
def test_the_rest_is_distinct_and_its_gaps_differ_by_one_at_most(n):
    for keep in range(1, n + 1):
        places = kept(n, keep)
        assert len(set(places)) == keep and min(places) >= 0 and max(places) < n
        gaps = torch.tensor(places).diff()
        assert keep == 1 or gaps.max() - gaps.min() <= 1


def test_the_floor_is_one_layer_that_sees_all():
    with pytest.raises(BudgetInfeasible, match="18") as caught:
        VTW().plan(Budget("layer_average", 17), shape_of((24, 24), llm_layers=32))
    assert caught.value.floor == 18
    assert VTW().plan(Budget("layer_average", 18), shape_of((24, 24), llm_layers=32)).keeps == {Site(IN_LLM, 1): 0}
    with pytest.raises(BudgetInfeasible, match="layer_average"):
        VTW().plan(Budget("interface_kept", 100), shape_of((24, 24), llm_layers=32))


@pytest.mark.parametrize("k", [0, 32])
def test_settings_out_of_range_are_refused(k):
    with pytest.raises(PruningError, match=r"k (must be in|takes)"):
        VTW(k=k)


@pytest.mark.parametrize("percent", [50, 33, 22])
def test_a_model_runs_what_was_planned(percent):
    family = Qwen3VL(qwen3_vl())
    engine, inputs = Engine(family, VTW()), family.inputs(processed(((6, 6), (3, 4))))
    k = round(inputs.shape.n * percent / 100)
    plan = engine.plan(Budget("layer_average", k), inputs.shape)
    realised = engine.prefill(inputs, plan).realised
    assert realised.entering == plan.entering and sum(realised.entering) == 6 * k
    assert realised.selection_flops == 0


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_states_caches_and_logits_equal_the_authors(path):
    assert validate_file(path).status == "pass"


def test_whole_models_and_the_search_are_among_the_files():
    assert len(GOLDEN) == 4
