"""Renumbered positions, size biases, merges and signals inside the LLM, against a plain decoder loop.

The plain loop calls the native layers one by one on explicit hidden states, without hooks and without a cache.
"""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import torch
from tiny import Scripted, in_llm, processed, qwen3_vl

import harness.models.decoder as llm_module
import harness.models.interface as interface_module
from harness.models.attention import Capture
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from harness.models.sequence import mask_for
from methods.base import IN_VIT, INTERFACE, PruningError, Selection, Signal, Site

CUT = 2
KEEP = (0, 5, 6, 11, 19, 21, 23)


@pytest.fixture(scope="module")
def model():
    return qwen3_vl(torch.float64)


@pytest.fixture(scope="module")
def batch():
    batch = processed()
    return {**batch, "pixel_values": batch["pixel_values"].double()}


@dataclass
class Prompt:
    """What enters layer 0 natively, and after which layers DeepStack adds what."""

    hidden: torch.Tensor
    positions: torch.Tensor  # (3, T)
    deepstack: list
    visual: torch.Tensor  # (n,) places


@torch.no_grad()
def native_prompt(model, batch):
    inputs = Qwen3VL(model).inputs(batch)
    features = model.model.get_image_features(batch["pixel_values"], batch["image_grid_thw"], return_dict=True)
    hidden = model.get_input_embeddings()(batch["input_ids"])
    visual = inputs.prompt.visual_index
    hidden[0, visual] = torch.cat(features.pooler_output)
    return Prompt(hidden, inputs.prompt.positions, [torch.cat(x) for x in features.deepstack_features], visual)


def continued(model, prompt, new):
    """The prompt with all but the last of the new tokens (t,) behind it, as a run without a cache would see it."""
    return Prompt(
        torch.cat([prompt.hidden, model.get_input_embeddings()(new[None, :-1])], dim=1),
        torch.cat([prompt.positions, prompt.positions[:, -1:] + torch.arange(1, len(new))], dim=1),
        prompt.deepstack,
        prompt.visual,
    )


@torch.no_grad()
def plain(model, prompt, surgery, bias=0.0):
    """Logits (T', V). surgery(hidden, cos, sin, visual) at layer CUT gives their replacements.

    bias: added to the mask from there on, (T',) for the keys or (T', T').
    """
    text = model.model.language_model
    hidden, visual = prompt.hidden, prompt.visual
    cos, sin = text.rotary_emb(hidden, prompt.positions[:, None])
    alive = torch.arange(visual.shape[0])
    for number, layer in enumerate(text.layers):
        if number == CUT:
            hidden, cos, sin, visual, alive = surgery(hidden, cos, sin, visual)
        length = hidden.shape[1]
        mask = torch.full((length, length), torch.finfo(hidden.dtype).min, dtype=hidden.dtype).triu(1)
        if number >= CUT:
            mask = mask + bias
        hidden = layer(hidden, position_embeddings=(cos, sin), attention_mask=mask[None, None])
        if number < len(prompt.deepstack):
            hidden = hidden.clone()
            hidden[0, visual] += prompt.deepstack[number][alive]
    return model.lm_head(text.norm(hidden))[0]


def survivors(prompt, keep=KEEP):
    gone = {prompt.visual[unit].item() for unit in range(prompt.visual.shape[0]) if unit not in keep}
    return torch.tensor([place for place in range(prompt.hidden.shape[1]) if place not in gone])


def renumbered(model, prompt):
    def surgery(hidden, cos, sin, visual):
        order = survivors(prompt)
        numbers = torch.arange(order.shape[0]).expand(3, 1, -1)
        cos, sin = model.model.language_model.rotary_emb(hidden, numbers)
        return hidden[:, order], cos, sin, torch.searchsorted(order, visual[list(KEEP)]), torch.tensor(KEEP)

    return surgery


def test_renumbered_prefill_equals_layers_run_with_the_new_ids(model, batch):
    pruner = Scripted({in_llm(CUT): lambda view: Selection(torch.tensor(KEEP), positions="renumber")})
    engine = Engine(Qwen3VL(model), pruner)
    ours = engine.prefill(engine.family.inputs(batch), pruner.whole_plan(), logits_to_keep=0)
    prompt = native_prompt(model, batch)
    gold = plain(model, prompt, renumbered(model, prompt))
    assert (ours.logits[0] - gold).abs().max() < 1e-6  # eager layers here: float32 softmax is not used, sdpa is exact


def test_renumbered_decoding_equals_a_run_without_a_cache(model, batch):
    pruner = Scripted({in_llm(CUT): lambda view: Selection(torch.tensor(KEEP), positions="renumber")})
    engine = Engine(Qwen3VL(model), pruner)
    inputs = engine.family.inputs(batch)
    out, trace = engine.generate(
        inputs, pruner.whole_plan(), max_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    new = out.sequences[0, inputs.text_tokens + trace.entering[0] :]
    prompt = native_prompt(model, batch)
    extended = continued(model, prompt, new)
    gold = plain(model, extended, renumbered(model, extended))
    ours = torch.cat(out.logits)
    assert (ours - gold[-len(new) :]).abs().max() < 1e-6


def merge_pair(view):
    """Units 9 and 10 become one row, a copy of 9 that counts twice; the others stay."""
    n = view.n
    keep = torch.tensor([row for row in range(n) if row != 10])
    assign = torch.arange(n) - (torch.arange(n) >= 10).long()
    assign[10] = 9
    weight = torch.ones(n, dtype=torch.float64)
    weight[10] = 0.0
    return Selection(keep, assign, weight, key_bias=True)


def test_a_row_of_size_two_with_bias_equals_two_equal_rows(model, batch):
    pruner = Scripted({in_llm(CUT): merge_pair})
    engine = Engine(Qwen3VL(model), pruner)
    ours = engine.prefill(engine.family.inputs(batch), pruner.whole_plan(), logits_to_keep=0).logits[0]
    prompt = native_prompt(model, batch)
    first, second = prompt.visual[9], prompt.visual[10]

    def twins(hidden, cos, sin, visual):
        hidden, cos, sin = hidden.clone(), cos.clone(), sin.clone()
        for tensor in (hidden, cos, sin):
            tensor[:, second] = tensor[:, first]
        alive = torch.arange(24)
        alive[10] = 9
        return hidden, cos, sin, visual, alive

    length = prompt.hidden.shape[1]
    mutual = torch.zeros(length, length, dtype=torch.float64)
    mutual[first, second] = -torch.finfo(
        torch.float64
    ).min  # lifts the causal mask: a row of size two sees itself twice
    gold = plain(model, prompt, twins, mutual)
    text = torch.arange(prompt.visual[-1] + 1, prompt.hidden.shape[1])
    assert (ours[text - 1] - gold[text]).abs().max() < 1e-6

    unbiased = Scripted({in_llm(CUT): lambda view: replace(merge_pair(view), key_bias=False)})
    engine = Engine(Qwen3VL(model), unbiased)
    blind = engine.prefill(engine.family.inputs(batch), unbiased.whole_plan(), logits_to_keep=0)
    assert (blind.logits[0, text - 1] - gold[text]).abs().max() > 1e-3  # the bias is what makes them equal


def test_a_biased_decode_equals_a_run_without_a_cache(model, batch):
    pruner = Scripted({in_llm(CUT): merge_pair})
    engine = Engine(Qwen3VL(model), pruner)
    inputs = engine.family.inputs(batch)
    out, trace = engine.generate(
        inputs, pruner.whole_plan(), max_new_tokens=5, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    new = out.sequences[0, inputs.text_tokens + trace.entering[0] :]
    prompt = native_prompt(model, batch)
    extended = continued(model, prompt, new)
    order = torch.tensor([place for place in range(extended.hidden.shape[1]) if place != prompt.visual[10]])
    alive = torch.tensor([unit for unit in range(24) if unit != 10])

    def merged(hidden, cos, sin, visual):
        return hidden[:, order], cos[:, order], sin[:, order], torch.searchsorted(order, visual[alive]), alive

    bias = torch.zeros(order.shape[0], dtype=torch.float64)
    bias[prompt.visual[9]] = torch.tensor(2.0, dtype=torch.float64).log()
    gold = plain(model, extended, merged, bias)
    assert (torch.cat(out.logits) - gold[-len(new) :]).abs().max() < 1e-6


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("queries", ["last", "visual", "text"])
def test_attention_rows_equal_the_models_own_eager_weights(attention, queries):
    signal = Signal("rows", "llm", layer=1, queries=queries)
    seen = {}

    def look(view):
        seen["rows"] = view.signal(signal)
        return Selection(torch.arange(view.n))

    model, batch = qwen3_vl(attention=attention), processed()
    pruner = Scripted({in_llm(CUT): look}, signals=(signal,))
    engine = Engine(Qwen3VL(model), pruner)
    inputs = engine.family.inputs(batch)
    engine.prefill(inputs, pruner.whole_plan())
    eager = qwen3_vl(attention="eager")
    with torch.no_grad():
        weights = eager(**batch, output_attentions=True).attentions[1][0].mean(0)  # (T, T)
    visual = inputs.prompt.visual_index
    after = torch.arange(visual[-1] + 1, inputs.prompt.length)
    rows = {"last": weights[-1], "visual": weights[visual], "text": weights[after]}[queries]
    assert (seen["rows"] - rows[..., visual]).abs().max() < 1e-6


@pytest.mark.parametrize("kind", ["rows", "logits"])
def test_a_square_of_all_tokens_holds_the_visual_ones_first(model, batch, kind):
    """At a second site, where only some of the tokens that the layer saw are alive: the others count as others."""
    square, some = Signal(kind, layer=2, queries="all", per_head=True), Signal(kind, layer=2, queries="visual")
    seen = {}

    def look(view):
        seen.update({signal: view.signal(signal) for signal in (square, some)})
        return Selection(torch.arange(view.n))

    pruner = Scripted({in_llm(2): lambda view: Selection(torch.tensor(KEEP)), in_llm(3): look}, (square, some))
    engine = Engine(Qwen3VL(model), pruner)
    inputs = engine.family.inputs(batch)
    engine.prefill(inputs, pruner.whole_plan())
    n, length = len(KEEP), len(KEEP) + inputs.text_tokens
    assert seen[square].shape == (4, length, length)
    finite = torch.isfinite(seen[some])
    assert torch.equal(finite, torch.isfinite(seen[square][:, :n, :n].mean(0)))
    assert (seen[square][:, :n, :n].mean(0) - seen[some])[finite].abs().max() < 1e-6
    before = 3  # text in front of the image sees no visual token, text behind it sees them all
    blind, sees = seen[square][:, n : n + before, :n], seen[square][:, n + before :, :n]
    low = 0 if kind == "rows" else -torch.inf
    assert (blind == low).all() and (sees > low).all()


def test_peeking_at_a_layer_gives_what_the_layer_then_computes(model, batch):
    peeked, passed = Signal("keys", layer=3), Signal("queries", layer=1)
    seen = {}

    def look(view):
        seen.update({view.site.layer: view.signal(peeked)})
        assert view.signal(passed).shape == (24, 4, 16)
        return Selection(torch.arange(view.n))

    pruner = Scripted({in_llm(3): look, in_llm(4): look}, signals=(peeked, passed))
    engine = Engine(Qwen3VL(model), pruner)
    engine.prefill(engine.family.inputs(batch), pruner.whole_plan())
    assert seen[3].shape == (24, 2, 16)
    assert (seen[3] - seen[4]).abs().max() < 1e-12


def test_all_work_of_a_pruner_is_attributed_to_select(model, batch, monkeypatch):
    """Signals, decision and cut of every hook point; what the model itself does is not."""
    seen, stages = [], []

    class Clock:
        @contextmanager
        def stage(self, name):
            stages.append(name)
            yield
            stages.pop()

    def noted(module, name):
        original = getattr(module, name)

        def run(*args, **kwargs):
            seen.append((name, stages[-1]))
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, run)

    noted(Capture, "logits")
    noted(llm_module, "cut")
    noted(interface_module, "select")
    keep = lambda view: Selection(torch.arange(view.n - 1))  # noqa: E731
    signals = (Signal("rows", "llm", layer=1), Signal("rows", "vit", layer=2, queries="visual"))
    pruner = Scripted({Site(IN_VIT, 2): keep, Site(INTERFACE): keep, in_llm(CUT): keep}, signals=signals)
    engine = Engine(Qwen3VL(model), pruner)
    engine.prefill(engine.family.inputs(batch), pruner.whole_plan(), clock=Clock())
    assert {name for name, _ in seen} == {"logits", "cut", "select"}
    assert {stage for _, stage in seen} == {"select"}
    assert stages == []


def test_masks_by_hand():
    like = torch.zeros(1)
    assert mask_for(1, 9, None, "sdpa", like) is None
    assert mask_for(4, 4, None, "sdpa", like) is None
    low = torch.finfo(torch.float32).min
    assert mask_for(2, 2, None, "eager", like).tolist() == [[[[0.0, low], [0.0, 0.0]]]]
    assert mask_for(1, 3, torch.tensor([0.5, 0.0]), "sdpa", like).tolist() == [[[[0.5, 0.0, 0.0]]]]
    with pytest.raises(PruningError, match="sdpa or eager"):
        mask_for(1, 3, torch.tensor([0.5]), "flash_attention_2", like)
