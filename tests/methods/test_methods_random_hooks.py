"""Random choice at the other hook points: the same draw, planned as the methods there plan."""

from __future__ import annotations

import pytest
import torch
from views import shape_of, view_of

import methods
from methods.base import IN_LLM, IN_VIT, PRE_TOKENIZATION, Budget, BudgetInfeasible, Shape, Site
from methods.fastv import FastV
from methods.quietprune import QuietPrune
from methods.random import Random

HOOKS = {
    "random_pre_tokenization": ("before_tokenization", Site(PRE_TOKENIZATION)),
    "random_in_vit": ("in_vit", Site(IN_VIT, 1)),
    "random_in_llm": ("in_llm", Site(IN_LLM, 1)),
}
BY_IMAGE = ("random_pre_tokenization", "random_in_vit")
SHAPES = (shape_of((8, 8)), shape_of((2, 3), (5, 4)), shape_of((24, 24), vit_layers=23, llm_layers=32))


def kept_by(name: str, shape: Shape, k: int, seed: int = 3) -> list[int]:
    hook, site = HOOKS[name]
    return getattr(methods.build(name), hook)(view_of(site, torch.zeros(shape.n, 2), k, shape, seed=seed)).keep.tolist()


@pytest.mark.parametrize("name", HOOKS)
def test_on_one_image_the_draw_is_that_of_random(name: str):
    shape = shape_of((8, 8))
    at_interface = Random().at_interface(view_of(Site("interface"), torch.zeros(64, 2), 13, shape, seed=3))
    assert kept_by(name, shape, 13) == at_interface.keep.tolist() != kept_by(name, shape, 13, seed=4)


@pytest.mark.parametrize("name", HOOKS)
def test_the_budget_is_met_by_distinct_ascending_tokens_of_all_images(name: str):
    kept = kept_by(name, shape_of((2, 3), (5, 4)), 9)
    assert len(kept) == 9 and kept == sorted(set(kept)) and set(kept) <= set(range(26))


@pytest.mark.parametrize("name", BY_IMAGE)
def test_in_front_of_the_interface_each_image_keeps_its_share(name: str):
    for seed in range(5):
        kept = kept_by(name, shape_of((2, 3), (5, 4)), 13, seed)
        assert sum(row < 6 for row in kept) == 3  # 13 x 6 / 26


@pytest.mark.parametrize("shape", SHAPES)
def test_in_the_vit_the_plan_is_that_of_quietprune_without_its_additions(shape: Shape):
    quiet, control = QuietPrune(guidance="saliency", aggregate=False), methods.build("random_in_vit")
    for tokens in range(len(shape.images), shape.n):
        plan = control.plan(Budget("layer_average", tokens), shape)
        assert plan == quiet.plan(Budget("layer_average", tokens), shape)
        for site in plan.keeps:
            assert control.alive_after(site, plan, shape) == quiet.alive_after(site, plan, shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_the_llm_plan_and_floor_are_those_of_fastv(shape: Shape):
    def planned(name: str, tokens: int) -> object:
        try:
            return methods.build(name).plan(Budget("layer_average", tokens), shape)
        except BudgetInfeasible as error:
            return error.floor

    assert [planned("random_in_llm", tokens) for tokens in range(1, shape.n)] == [
        planned("fastv", tokens) for tokens in range(1, shape.n)
    ]
    assert methods.build("random_in_llm").site(shape) == FastV().site(shape)


@pytest.mark.parametrize("name", BY_IMAGE)
def test_a_unit_of_each_image_is_the_floor_in_front_of_the_interface(name: str):
    with pytest.raises(BudgetInfeasible, match="of each image, here 2, got 1; raise --budget") as refused:
        methods.build(name).plan(Budget("layer_average", 1), shape_of((2, 3), (5, 4)))
    assert refused.value.floor == 2


@pytest.mark.parametrize("name", HOOKS)
def test_a_native_run_is_refused(name: str):
    with pytest.raises(BudgetInfeasible, match="--budget"):
        methods.build(name).plan(Budget("native", 0), shape_of((4, 4)))
