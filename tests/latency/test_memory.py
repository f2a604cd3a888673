"""The size of the cache, told from token counts, against the cache that a prefill really leaves."""

from __future__ import annotations

import pytest
import torch
from tiny import processed, qwen3_vl

from harness.flops.dims import dims_of
from harness.latency.resources import kv_cache_bytes
from harness.models.clock import Untimed
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods import build
from methods.base import Budget


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["full", "divprune", "fastv", "pyramiddrop"])
def test_the_cache_is_as_large_as_it_is_said_to_be(method: str, dtype: torch.dtype):
    family = Qwen3VL(qwen3_vl(dtype=dtype))
    engine, inputs = Engine(family, build(method)), family.inputs(processed(((4, 6),)))
    plan = engine.plan(Budget("layer_average", 24 if method == "full" else 16), inputs.shape)
    with torch.no_grad(), engine.encoded(inputs, plan, 0, Untimed()) as encoded:
        cache = family.model(**encoded.arguments, use_cache=True).past_key_values
    held = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    assert kv_cache_bytes(dims_of(family.model.config), encoded.trace.realised, dtype.itemsize) == held
