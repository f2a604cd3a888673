"""A control for each hook point, and the hook point that a run is judged at."""

from __future__ import annotations

from dataclasses import replace

import pytest
from logged_runs import record

import methods
from harness.records.controls import CONTROLS, RANDOM_AT, cutting_hook
from methods.base import HOOKS, Budget, Shape


def test_every_hook_point_has_a_control_that_cuts_there_and_nowhere_else():
    assert tuple(RANDOM_AT) == HOOKS
    for hook, name in RANDOM_AT.items():
        control = methods.build(name)
        plan = control.plan(Budget("layer_average", 32), Shape(((8, 8),), 8, 16))
        assert control.hooks == (hook,) and {site.hook for site in plan.keeps} == {hook}


def test_every_control_is_a_shipped_method_without_settings():
    assert all(methods.build(name).settings() == {} for name in CONTROLS)


@pytest.mark.parametrize(
    ("kept", "hook"),
    [
        ({"interface": "f", "in-llm:2": "3"}, "interface"),
        ({"in-llm:2": "3", "interface": "f"}, "interface"),  # whatever order a store gives
        ({"interface": "ff", "in-llm:2": "3"}, "in-llm"),  # all eight tokens leave the interface
        ({"in-vit:1:attention": "ff", "patches": "ffffffff"}, "in-vit"),  # a patch of each unit is left
        ({"pre-tokenization": "1"}, "pre-tokenization"),
        ({}, None),
    ],
)
def test_a_run_is_judged_at_the_first_hook_point_that_cuts(kept: dict[str, str], hook: str | None):
    assert cutting_hook([replace(record(1), full_tokens=8, kept=kept)]) == hook


def test_one_sample_that_is_cut_earlier_decides():
    late, early = (
        replace(record(n), full_tokens=8, kept={site: "3"}) for n, site in ((1, "in-llm:2"), (2, "in-vit:1"))
    )
    assert cutting_hook([late, early]) == "in-vit"
