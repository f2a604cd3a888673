"""Budgets of one sample, on a model of 4 layers and a sample of 12 visual tokens, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.budget.planning import Planner, misses_budget
from harness.budget.spec import BudgetSpec
from harness.records.records import Record
from methods.base import IN_LLM, INTERFACE, Budget, BudgetInfeasible, Plan, Shape, Site, one_site_plan

SHAPE = Shape(grids=((3, 4),), vit_layers=2, llm_layers=4)


class Planning:
    """An engine's planning half for a method with one site."""

    def __init__(self, site: Site):
        self.site = site
        self.asked: list[Budget] = []

    def plan(self, budget: Budget, shape: Shape) -> Plan:
        self.asked.append(budget)
        return one_site_plan("m", self.site, budget, shape)


def linear(plan: Plan, shape: Shape, text_tokens: int) -> float:
    """A model whose ViT costs as much as its LLM on all tokens."""
    return (shape.n + plan.layer_average) / (2 * shape.n)


def planner(words: str, site: Site | None = None) -> Planner:
    return Planner(Planning(site or Site(INTERFACE)), BudgetSpec.parse(words), linear)


def test_a_ratio_and_a_count_become_tokens_of_this_sample():
    assert planner("50%").plan(SHAPE, 5)[1] == 6
    assert planner("128").plan(SHAPE, 5)[1] == 12
    assert planner("interface_kept:3").plan(SHAPE, 5)[0].keeps == {Site(INTERFACE): 3}


def test_a_late_site_keeps_fewer_so_that_the_average_is_met():
    plan, asked = planner("50%", Site(IN_LLM, 1)).plan(SHAPE, 5)
    assert asked == 6 and plan.entering == (12, 4, 4, 4)  # 24 / 4 = 6


def test_native_asks_for_nothing():
    plan, asked = planner("native").plan(SHAPE, 5)
    assert asked is None and plan.keeps == {Site(INTERFACE): None}


def test_a_flops_ratio_becomes_the_nearest_tokens():
    assert planner("flops_ratio:0.75").plan(SHAPE, 5)[1] == 6  # (12 + 6) / 24
    assert planner("flops_ratio:0.76").plan(SHAPE, 5)[1] == 6
    assert planner("flops_ratio:1.0").plan(SHAPE, 5)[1] == 12


def test_a_flops_ratio_below_what_the_vision_tower_costs_names_the_lowest():
    with pytest.raises(BudgetInfeasible, match=r"no lower than 0\.542") as caught:  # (12 + 1) / 24
        planner("flops_ratio:0.3").plan(SHAPE, 5)
    assert caught.value.floor == 1


def test_a_flops_ratio_respects_the_floor_of_a_late_site():
    late = Site(IN_LLM, 2)  # two layers see all 12: at least 6 on average
    plan, asked = planner("flops_ratio:0.8", late).plan(SHAPE, 5)
    assert asked == 7 and plan.layer_average == 7
    with pytest.raises(BudgetInfeasible, match=r"no lower than 0\.750") as caught:
        planner("flops_ratio:0.7", late).plan(SHAPE, 5)
    assert caught.value.floor == 6


def test_equal_shapes_are_planned_once():
    engine = Planning(Site(INTERFACE))
    one = Planner(engine, BudgetSpec.parse("50%"), linear)
    assert one.plan(SHAPE, 5) is one.plan(replace(SHAPE), 9)
    assert len(engine.asked) == 1


def record(asked: int | None, entering: tuple[int, ...], error: str | None = None) -> Record:
    return Record("a", "c", "f", "1", "1", 1.0, 12, asked, entering, error=error)


def test_a_budget_is_missed_by_more_than_one_token_of_the_average():
    assert not misses_budget(record(6, (12, 4, 4, 4)), "layer_average")
    assert not misses_budget(record(6, (7, 7, 7, 7)), "layer_average")
    assert misses_budget(record(6, (7, 7, 7, 8)), "layer_average")
    assert misses_budget(record(6, (3, 5, 5, 5)), "layer_average")


def test_interface_kept_looks_at_the_first_layer_only():
    assert not misses_budget(record(6, (6, 1, 1, 1)), "interface_kept")
    assert misses_budget(record(6, (12, 4, 4, 4)), "interface_kept")


def test_native_runs_and_error_rows_miss_nothing():
    assert not misses_budget(record(None, (12, 12, 12, 12)), "native")
    assert not misses_budget(record(None, (), "torn"), "layer_average")
