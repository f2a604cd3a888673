"""Signals that a few methods inside the LLM read, each computed a second time from the native layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny import Scripted, in_llm, processed, qwen3_vl
from torch.utils.flop_counter import FlopCounterMode

from harness.flops.prefill import dims_of, planned_realised, prefill_flops
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods.base import MissingSignal, Plan, Selection, Signal

CUT = 4  # DeepStack adds to the layers before
TWO = ((2, 3), (3, 2))


@pytest.fixture(scope="module")
def family() -> Qwen3VL:
    return Qwen3VL(qwen3_vl())


def read(family: Qwen3VL, signal: Signal, grids=TWO) -> tuple[torch.Tensor, dict]:
    """The signal at layer CUT, and what the native layers saw: states, query, key (h, T, hd), cos, sin."""
    seen, native = {}, {}

    def look(view):
        seen["signal"] = view.signal(signal)
        return Selection(torch.arange(view.n))

    pruner = Scripted({in_llm(CUT): look}, signals=(signal,))
    engine = Engine(family, pruner)
    inputs = family.inputs(processed(grids))
    engine.prefill(inputs, pruner.whole_plan())
    layers = family.decoder.layers

    def remember(name):
        def hook(module, args, kwargs):
            native[name] = args[0] if args else kwargs["hidden_states"]
            native["cos"], native["sin"] = kwargs["position_embeddings"]

        return hook

    handles = [
        layers[0].register_forward_pre_hook(remember("inputs"), with_kwargs=True),
        layers[CUT].register_forward_pre_hook(remember("states"), with_kwargs=True),
    ]
    Engine(family, None).prefill(inputs, Plan({}))
    for handle in handles:
        handle.remove()
    layer, attention = layers[CUT], layers[CUT].self_attn
    with torch.no_grad():
        normed = layer.input_layernorm(native["states"])[0]  # (T, d)
        native["query"] = attention.q_norm(attention.q_proj(normed).unflatten(-1, (4, 16))).transpose(0, 1)
        native["key"] = attention.k_norm(attention.k_proj(normed).unflatten(-1, (2, 16))).transpose(0, 1)
    visual = inputs.prompt.visual_index
    native["visual"] = visual
    native["text"] = torch.tensor([t for t in range(visual[0], inputs.prompt.length) if t not in visual.tolist()])
    return seen["signal"], native


def rotate(states: torch.Tensor, native: dict) -> torch.Tensor:
    first, second = states.chunk(2, dim=-1)
    return states * native["cos"] + torch.cat([-second, first], dim=-1) * native["sin"]


def test_mean_rows_are_the_softmax_of_the_unrotated_mean_query_up_to_the_last_visual_token(family):
    rows, native = read(family, Signal("rows", layer=CUT, queries="mean", rope=False))
    end = native["visual"].max() + 1
    query = native["query"][:, :end].mean(1)  # (h, hd)
    key = native["key"][:, :end].repeat_interleave(2, dim=0)
    attention = torch.stack([(key[head] @ query[head] / 4).softmax(0) for head in range(4)])
    torch.testing.assert_close(rows, attention.mean(0)[native["visual"]])
    turned, _ = read(family, Signal("rows", layer=CUT, queries="mean"))
    assert (turned - rows).abs().max() > 1e-3  # rotation matters here


def test_cosines_are_between_rotated_keys_of_all_heads_side_by_side(family):
    cosines, native = read(family, Signal("cosines", layer=CUT))
    keys = rotate(native["key"], native)[:, native["visual"]].reshape(2, 12, 16)
    wide = torch.cat([keys[0], keys[1]], dim=-1)  # (n, 32)
    torch.testing.assert_close(cosines, torch.nn.functional.cosine_similarity(wide[:, None], wide[None], dim=-1))


def test_affinity_is_the_product_of_input_embeddings_of_image_and_text(family):
    affinity, native = read(family, Signal("affinity", at=CUT))
    embeddings = native["inputs"][0]
    assert affinity.shape == (12, len(native["text"]))
    torch.testing.assert_close(affinity, embeddings[native["visual"]] @ embeddings[native["text"]].T)


def test_gravity_is_what_queries_and_keys_of_ones_would_score(family):
    gravity, native = read(family, Signal("gravity", at=CUT))
    ones = rotate(torch.ones(1, native["states"].shape[1], 16), native)[0]
    torch.testing.assert_close(gravity, ones[native["text"]] @ ones[native["visual"]].T / 4)


def test_a_layer_that_ran_has_no_unrotated_states(family):
    with pytest.raises(MissingSignal, match="rope=True"):
        read(family, Signal("keys", layer=CUT - 1, rope=False))


def test_an_unrotated_peek_differs_from_the_rotated_one_by_the_rotation(family):
    plain, native = read(family, Signal("keys", layer=CUT, rope=False))
    turned, _ = read(family, Signal("keys", layer=CUT))
    torch.testing.assert_close(plain, native["key"].transpose(0, 1)[native["visual"]])
    torch.testing.assert_close(turned, rotate(native["key"], native).transpose(0, 1)[native["visual"]])


def test_a_signal_of_another_site_is_not_computed(family):
    here, there = Signal("keys", layer=3, at=3), Signal("keys", layer=4, at=4)
    seen = {}

    def look(view):
        seen[view.site.layer] = set(view.signals)
        return Selection(torch.arange(view.n))

    pruner = Scripted({in_llm(3): look, in_llm(4): look}, signals=(here, there))
    Engine(family, pruner).prefill(family.inputs(processed()), pruner.whole_plan())
    assert seen == {3: {here}, 4: {there}}


def test_these_signals_cost_what_torch_counts_and_what_the_plan_tells(family):
    signals = (
        Signal("rows", layer=2, queries="mean", rope=False, at=2),
        Signal("cosines", layer=2, at=2),  # shares the peek
        Signal("affinity"),
        Signal("gravity", at=3),
        Signal("rows", layer=2, queries="text", per_head=True, at=3),
    )
    pruner = Scripted({in_llm(2): _first(9), in_llm(3): _first(5)}, signals=signals)
    inputs = family.inputs(processed(TWO))
    plan = Plan({in_llm(2): 9, in_llm(3): 5}, (12, 12, 9, 5, 5, 5))
    with FlopCounterMode(display=False, custom_mapping={_FLASH: _attention_flops}) as counter:
        realised = Engine(family, pruner).prefill(inputs, plan).realised
    dims = dims_of(family.model.config)
    assert prefill_flops(dims, realised).total == counter.get_total_flops()
    assert planned_realised(dims, inputs.shape, plan, inputs.text, pruner) == replace(realised, kept={})


_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _attention_flops(query, key, value, *args, out_val=None, **kwargs) -> int:
    batch, heads, queries, width = query
    return 2 * 2 * batch * heads * queries * key[2] * width


def _first(k: int):
    return lambda view: Selection(torch.arange(k))
