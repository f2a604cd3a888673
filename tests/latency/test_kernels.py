"""Which attention kernels ran, told from the operators themselves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny import processed, qwen3_vl

from harness.latency.resources import KernelWatch, attention_calls
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods.base import Plan


def attend() -> None:
    query = torch.randn(1, 2, 4, 8)
    F.scaled_dot_product_attention(query, query, query)


def test_fused_and_unfused_attention_are_told_apart_by_stage():
    def run(watch: KernelWatch) -> None:
        attend()
        with watch.stage("vit"):
            attend()
            torch.softmax(torch.ones(3), 0)
            with watch.stage("select"):
                torch.softmax(torch.ones(3), 0)  # the method's own
                attend()
            attend()

    assert attention_calls(run) == {
        ("other", "flash"): 1, ("vit", "flash"): 2, ("vit", "unfused"): 1, ("select", "flash"): 1,
    }  # fmt: skip


@pytest.mark.parametrize(("attention", "kernel"), [("sdpa", "flash"), ("eager", "unfused")])
def test_a_models_attention_is_counted_layer_by_layer(attention: str, kernel: str):
    family = Qwen3VL(qwen3_vl(attention=attention))
    inputs = family.inputs(processed(((4, 6),)))
    engine, plan = Engine(family, None), Plan({}, (24,) * 6)
    calls = attention_calls(lambda watch: engine.prefill(inputs, plan, clock=watch))
    assert calls == {("vit", kernel): 8, ("llm_prefill", kernel): 6}
