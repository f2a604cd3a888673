from __future__ import annotations

from views import shape_of

from methods.base import Budget
from methods.full import Full


def test_full_plans_no_site_and_all_tokens_in_every_layer():
    plan = Full().plan(Budget("layer_average", 3), shape_of((2, 3), (1, 2), llm_layers=4))
    assert plan.keeps == {} and plan.entering == (8, 8, 8, 8)
