"""A control for each hook point."""

from __future__ import annotations

import methods
from harness.records.controls import CONTROLS, RANDOM_AT
from methods.base import HOOKS, Budget, Shape


def test_every_hook_point_has_a_control_that_cuts_there_and_nowhere_else():
    assert tuple(RANDOM_AT) == HOOKS
    for hook, name in RANDOM_AT.items():
        control = methods.build(name)
        plan = control.plan(Budget("layer_average", 32), Shape(((8, 8),), 8, 16))
        assert control.hooks == (hook,) and {site.hook for site in plan.keeps} == {hook}


def test_every_control_is_a_shipped_method_without_settings():
    assert all(methods.build(name).settings() == {} for name in CONTROLS)
