"""Gold tests: pruning equals the native Qwen3-VL on all tokens with the pruned ones masked out as keys.

float64, so that "equal" means equal. The mutations at the end break one thing each and must be seen.
"""

from dataclasses import replace

import pytest
import torch
from masked import masked
from tiny import Scripted, in_llm, keep_units, processed, qwen3_vl

import harness.models.decoder as llm_module
import harness.models.engine as engine_module
import harness.models.families.qwen3_vl as family_module
import harness.models.sequence as sequence_module
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from harness.models.vision_state import VisionState
from methods.base import IN_VIT, INTERFACE, PRE_TOKENIZATION, Budget, Plan, Site

ONE = ((4, 6),)
ODD = ((3, 5),)
THREE = ((2, 3), (4, 6), (3, 1))
PIXELS, CUT1, CUT2, CUT3, FACE = (
    Site(PRE_TOKENIZATION), Site(IN_VIT, 1), Site(IN_VIT, 3), Site(IN_VIT, 5), Site(INTERFACE),
)  # fmt: skip

# site -> units of the image that stay; nested, since what is gone is gone
PIXEL_CASE = {PIXELS: (0, 1, 3, 4, 7, 9, 10, 13, 14, 20, 22, 23)}
VIT_CASE = {CUT1: (0, 1, 3, 4, 7, 9, 10, 13, 14, 20, 22, 23), CUT2: (1, 3, 7, 9, 14, 20, 23), CUT3: (3, 9, 14, 23)}
FACE_CASE = {FACE: (1, 4, 9, 10, 17, 22)}
LLM_CASE = {in_llm(2): (0, 5, 6, 11, 19, 21, 23)}
LLM_TWICE = {in_llm(1): (0, 5, 6, 11, 19, 21, 23), in_llm(3): (5, 11, 23)}
ALL_CASE = {
    PIXELS: tuple(range(0, 22)), CUT1: tuple(range(1, 20)), CUT2: tuple(range(2, 18)), CUT3: tuple(range(3, 15)),
    FACE: (3, 4, 7, 8, 10, 11, 13, 14), in_llm(1): (3, 4, 8, 11, 14), in_llm(4): (4, 11),
}  # fmt: skip
CASES = {
    "pixels": PIXEL_CASE, "vit": VIT_CASE, "interface": FACE_CASE, "llm": LLM_CASE, "llm twice": LLM_TWICE,
    "all together": ALL_CASE,
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return qwen3_vl(torch.float64)


def run(model, inputs, case, image=0, **options):
    """(engine, plan) of a scripted pruner that keeps the given units of one image."""
    pruner = Scripted({site: keep_units(*units, image=image) for site, units in case.items()}, **options)
    return Engine(Qwen3VL(model), pruner), pruner.whole_plan()


def dead_keys(model, inputs, case, image=0):
    """module -> keys that are gone, for the native model with everything present."""
    n = inputs.shape.images[image]
    start = sum(inputs.shape.images[:image])
    gone = set()
    dead = {}
    vit_tokens, places = 4 * inputs.shape.n, inputs.prompt.spans[image][0]

    def vit_mask():
        mask = torch.zeros(vit_tokens, dtype=torch.bool)
        for unit in gone:
            mask[4 * (start + unit) : 4 * (start + unit) + 4] = True
        return list(mask.split([4 * count for count in inputs.shape.images]))

    def lose(site):
        if site in case:
            gone.update(set(range(n)) - set(case[site]))

    lose(PIXELS)
    for number, block in enumerate(model.model.visual.blocks):
        dead[block.attn] = vit_mask()
        lose(Site(IN_VIT, number))
    lose(FACE)
    for number, layer in enumerate(model.model.language_model.layers):
        lose(in_llm(number))
        mask = torch.zeros(inputs.prompt.length, dtype=torch.bool)
        mask[[places + unit for unit in gone]] = True
        dead[layer.self_attn] = mask
    survivors = torch.tensor([i for i in range(inputs.prompt.length) if i not in {places + unit for unit in gone}])
    return dead, survivors


def gold_error(model, grids=ONE, case=None, image=0):
    """Largest logit difference over the survivors between our run and the masked native run."""
    batch = processed(grids)
    batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    engine, plan = run(model, None, case, image)
    inputs = engine.family.inputs(batch)
    ours = engine.prefill(inputs, plan, logits_to_keep=0)
    dead, survivors = dead_keys(model, inputs, case, image)
    with masked(model, dead), torch.no_grad():
        gold = model(**batch).logits[:, survivors]
    assert gold.std() > 0.5  # a flat model would agree with anything
    return (ours.logits - gold).abs().max().item()


@pytest.mark.parametrize("grids", [ONE, ODD, THREE, ((1, 1),), ((1, 7), (5, 1))])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_keeping_everything_is_the_native_model_bit_for_bit(grids, attention):
    model = qwen3_vl(attention=attention)
    batch = processed(grids)
    engine = Engine(Qwen3VL(model), None)
    inputs = engine.family.inputs(batch)
    ours = engine.prefill(inputs, engine.plan(Budget("layer_average", 1), inputs.shape), logits_to_keep=0)
    with torch.no_grad():
        assert torch.equal(ours.logits, model(**batch).logits)
    assert ours.realised.entering == (inputs.shape.n,) * 6


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pruned_run_equals_the_native_model_with_masked_keys(model, case):
    assert gold_error(model, ONE, case) < 1e-9


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_under_eager_attention_too(case):
    assert gold_error(qwen3_vl(torch.float64, "eager"), ONE, case) < 1e-5  # eager's softmax runs in float32


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_of_three_images_is_pruned_and_the_others_are_not(model, case):
    assert gold_error(model, THREE, case, image=1) < 1e-9


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_greedy_tokens_equal_those_of_the_masked_native_model(model, case):
    batch = processed(ONE, seed=5)
    batch["pixel_values"] = batch["pixel_values"].double()
    engine, plan = run(model, None, case)
    inputs = engine.family.inputs(batch)
    ours, trace = engine.generate(inputs, plan, max_new_tokens=10, do_sample=False)
    dead, _ = dead_keys(model, inputs, case)
    with masked(model, dead):
        gold = model.generate(**batch, max_new_tokens=10, do_sample=False)
    short = inputs.text_tokens + trace.entering[0]
    assert ours[0, short:].tolist() == gold[0, inputs.prompt.length :].tolist()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_counts_are_measured_from_what_ran(model, case):
    engine, plan = run(model, None, case)
    batch = processed(ONE)
    batch["pixel_values"] = batch["pixel_values"].double()
    realised = engine.prefill(engine.family.inputs(batch), plan).realised
    alive = 24
    for number, (tokens,) in enumerate(realised.vit_tokens):
        alive = len(case.get(PIXELS, range(alive))) if number == 0 and PIXELS in case else alive
        assert tokens == 4 * alive
        alive = len(case.get(Site(IN_VIT, number), range(alive)))
    alive = len(case.get(FACE, range(alive)))
    for number, entering in enumerate(realised.entering):
        alive = len(case.get(in_llm(number), range(alive)))
        assert entering == alive
    last = list(case.values())[-1]
    assert int(list(realised.kept.values())[-1], 16) == sum(1 << unit for unit in last)


def test_float32_error_is_rounding_only():
    assert gold_error(qwen3_vl(), ONE, ALL_CASE) < 5e-4


# Mutations: each breaks one thing; the gold test must notice.


def _gather_skipped(which):
    original = VisionState._gathered

    def broken(self, smaller, table, keep, angle_zero):
        if (angle_zero == 1.0) == (which == "cos"):
            return original(self, smaller, table, torch.arange(keep.shape[0]), angle_zero)
        return original(self, smaller, table, keep, angle_zero)

    return broken


def test_mutation_vision_rope_not_gathered(model, monkeypatch):
    monkeypatch.setattr(VisionState, "_gathered", _gather_skipped("cos"))
    assert gold_error(model, ONE, VIT_CASE) > 0.1


def test_mutation_positions_compacted_at_the_interface(model, monkeypatch):
    original = engine_module.shorten
    monkeypatch.setattr(engine_module, "shorten", lambda prompt, rows, positions: original(prompt, rows, "renumber"))
    assert gold_error(model, ONE, FACE_CASE) > 0.1


def test_mutation_deepstack_rows_not_followed_in_the_vit(model, monkeypatch):
    original = VisionState.select

    def broken(self, selection, kept):
        state = original(self, selection, kept)
        return replace(state, taps=tuple(replace(t, rows=torch.arange(t.rows.shape[0])) for t in state.taps))

    monkeypatch.setattr(VisionState, "select", broken)
    assert gold_error(model, ONE, VIT_CASE) > 0.1


def test_mutation_deepstack_rows_not_followed_in_the_llm(model, monkeypatch):
    monkeypatch.setattr(
        llm_module.Surgery, "reduce_features", lambda self, features: features[: self._sequence.index.shape[0]]
    )
    assert gold_error(model, ONE, LLM_TWICE) > 0.1


def test_mutation_llm_rope_not_gathered(model, monkeypatch):
    original = llm_module.cut

    def broken(sequence, hidden, selection, rotary, policy):
        shorter, states = original(sequence, hidden, selection, rotary, policy)
        length = states.shape[1]
        return replace(shorter, cos=sequence.cos[:, :length], sin=sequence.sin[:, :length]), states

    monkeypatch.setattr(llm_module, "cut", broken)
    assert gold_error(model, ONE, LLM_CASE) > 0.1


def test_mutation_causal_mask_forgotten_under_eager(monkeypatch):
    monkeypatch.setattr(llm_module, "mask_for", lambda *arguments: None)
    assert gold_error(qwen3_vl(torch.float64, "eager"), ONE, LLM_CASE) > 0.1


def test_mutation_survivors_in_the_wrong_order(model, monkeypatch):
    original = sequence_module.reduce
    monkeypatch.setattr(sequence_module, "reduce", lambda selection, rows: original(selection, rows).flip(0))
    assert gold_error(model, ONE, LLM_CASE) > 0.1


def test_mutation_images_attend_to_each_other(model, monkeypatch):
    def broken(self, number, state):
        block, bounds = self.visual.blocks[number], torch.tensor([0, state.hidden.shape[0]], dtype=torch.int32)
        tables = (state.cos, state.sin)
        attended = block.attn(block.norm1(state.hidden), cu_seqlens=bounds, position_embeddings=tables)
        return replace(state, hidden=state.hidden + attended)

    monkeypatch.setattr(family_module.Qwen3VL, "run_attention", broken)
    assert gold_error(model, THREE, FACE_CASE, image=1) > 0.1


def test_mutation_patches_of_a_unit_shuffled(model, monkeypatch):
    original = family_module.Qwen3VL.embed

    def broken(self, inputs, keep):
        pixels = inputs.pixels.view(-1, 4, inputs.pixels.shape[1]).flip(1).reshape(inputs.pixels.shape)
        return original(self, replace(inputs, pixels=pixels), keep)

    monkeypatch.setattr(family_module.Qwen3VL, "embed", broken)
    assert gold_error(model, ONE, PIXEL_CASE) > 0.1


def test_afterwards_nothing_is_left_on_the_model(model):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    engine, plan = run(model, None, ALL_CASE)
    batch = processed(ONE)
    batch["pixel_values"] = batch["pixel_values"].double()
    before = model(**batch).logits
    engine.prefill(engine.family.inputs(batch), plan)
    text = model.model.language_model
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert "_deepstack_process" not in vars(text)
    assert ALL_ATTENTION_FUNCTIONS._local_mapping == {}
    assert torch.equal(model(**batch).logits, before)


def test_a_failing_pruner_leaves_nothing_behind(model):
    def explode(view):
        raise RuntimeError("pruner failed")

    pruner = Scripted({in_llm(3): explode, in_llm(1): keep_units(1, 2)})
    engine = Engine(Qwen3VL(model), pruner)
    batch = processed(ONE)
    batch["pixel_values"] = batch["pixel_values"].double()
    with pytest.raises(RuntimeError, match="pruner failed"):
        engine.prefill(engine.family.inputs(batch), Plan({in_llm(1): None, in_llm(3): None}))
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert "_deepstack_process" not in vars(model.model.language_model)
