"""One description of a plan's sites: complete, in running order, and the same numbers told and measured."""

from types import SimpleNamespace

import pytest
import torch

from harness.models.sites import (
    HOOK_POINTS,
    attention_signals,
    planned_site,
    running_order,
    signals_read_at,
    site_before,
)
from methods.base import (
    HOOKS,
    IN_LLM,
    IN_VIT,
    INTERFACE,
    PRE_TOKENIZATION,
    Plan,
    Pruner,
    Shape,
    Signal,
    Site,
)

SIZES = SimpleNamespace(vit_width=8, llm_width=5, unit_patches=4, unit_pixel_values=3 * 6 * 6, projectors=2)
VIEWS = {PRE_TOKENIZATION: (7, 3, 6, 6), IN_VIT: (7, 4, 8), INTERFACE: (7, 5), IN_LLM: (7, 5)}  # View.hidden
TILED = Shape(((2, 4),), 3, 2, unit_patches=1, vit_cls=True, vit_grids=((2, 3),), tiles=((0, 6, 6),))


def test_every_hook_point_is_described_and_asks_a_hook_method():
    assert tuple(HOOK_POINTS) == HOOKS
    assert all(callable(getattr(Pruner, point.method)) for point in HOOK_POINTS.values())
    assert len({point.method for point in HOOK_POINTS.values()}) == len(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_the_width_told_from_sizes_is_the_width_measured_on_rows(hook):
    point = HOOK_POINTS[hook]
    assert point.width(SIZES) == point.measured_width(torch.empty(VIEWS[hook]))


def test_a_prompt_meets_every_place_in_the_vit_once_and_in_running_order():
    places = [site_before(half) for half in range(2 * 3 + 1)]
    assert places[:3] == [Site(PRE_TOKENIZATION), Site(IN_VIT, 0, "attention"), Site(IN_VIT, 0)]
    assert places == sorted(places, key=running_order) and len(set(places)) == 7
    assert set(places[1:]) == {Site(IN_VIT, block, after) for block in range(3) for after in ("attention", "block")}
    assert running_order(places[-1]) < running_order(Site(INTERFACE)) < running_order(Site(IN_LLM, 0))


def test_a_site_in_the_vit_asks_for_no_more_units_than_the_vit_has():
    plan = Plan({Site(INTERFACE): 7, Site(IN_VIT, 1): 7}, (7, 7))
    in_vit, interface = (planned_site(site, plan, Pruner(), TILED) for site in (Site(IN_VIT, 1), Site(INTERFACE)))
    assert (in_vit.shape.n, in_vit.keep_rows) == (6, 6)  # two of the prompt's eight visual tokens are newlines
    assert (interface.shape.n, interface.keep_rows) == (8, 7)


def test_rows_are_patches_in_the_vit_alone():
    class ByPatch(Pruner):
        granularity = "patch"

    shape, plan = Shape(((2, 3),), 3, 2), Plan({Site(IN_VIT, 1): 5, Site(INTERFACE): 3, Site(IN_LLM, 1): None})
    assert [planned_site(site, plan, ByPatch(), shape).keep_rows for site in plan.keeps] == [20, 3, None]


def test_cls_rows_join_at_the_interface_of_a_method_that_looks_at_them():
    class WithCls(Pruner):
        cls_row = True

    shape = Shape(((2, 3), (2, 3)), 3, 2, unit_patches=1, vit_cls=True)
    plan = Plan({Site(IN_VIT, 1): 5, Site(INTERFACE): 3, Site(IN_LLM, 1): 2})
    assert [planned_site(site, plan, WithCls(), shape).cls_rows for site in plan.keeps] == [0, 2, 0]
    assert [planned_site(site, plan, Pruner(), shape).cls_rows for site in plan.keeps] == [0, 0, 0]


def test_each_site_draws_from_a_seed_of_its_own_that_other_runs_do_not_have():
    plan = Plan({Site(IN_LLM, 1): 2, Site(INTERFACE): 3})
    seeds = [planned_site(site, plan, Pruner(), TILED).seed(run) for run in (0, 1) for site in plan.keeps]
    assert seeds == [0, 1, 1_000_003, 1_000_004]


def test_signals_are_read_where_attention_gives_them():
    features, question = Signal("features", "vit"), Signal("question")
    early, late = Signal("keys", layer=1, at=1), Signal("rows", layer=2)
    received = Signal("rows", "vit", 2, "received")
    needs = (features, question, early, late, received, Signal("text", "clip"))
    assert attention_signals(needs, "vit") == [received] and attention_signals(needs, "llm") == [early, late]
    assert signals_read_at(needs, 1) == [early, late] and signals_read_at(needs, 2) == [late]
