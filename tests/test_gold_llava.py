"""Gold tests of LLaVA-1.5: pruning equals the native model on all tokens with the pruned ones masked out as keys."""

from dataclasses import replace

import gold
import pytest
import torch
from gold import FACE, Gold, cases
from tiny import in_llm

import harness.models.engine as engine_module
import harness.models.llm as llm_module
from harness.models.family import Family
from harness.models.llava import Llava
from harness.models.vision import VisionState
from harness.validate.tiny import llava, llava_processed

ONE, TWO, THREE = ((6, 6),), ((6, 6),) * 2, ((6, 6),) * 3
CASES = cases(36)


def vit_keys(family, inputs, gone):
    """CLS is always there; images are one batch."""
    rows = gone.view(len(inputs.shape.grids), -1)
    return torch.nn.functional.pad(rows, (1, 0))


LLAVA = Gold(Llava, llava, llava_processed, vit_keys)


@pytest.fixture(scope="module")
def model():
    return llava(torch.float64)


@pytest.mark.parametrize("grids", [ONE, THREE])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_keeping_everything_is_the_native_model_bit_for_bit(grids, attention):
    assert gold.native_error(LLAVA, grids, attention) == 0


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pruned_run_equals_the_native_model_with_masked_keys(model, case):
    assert gold.gold_error(LLAVA, model, ONE, case) < 1e-9


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_of_three_images_is_pruned_and_the_others_are_not(model, case):
    assert gold.gold_error(LLAVA, model, THREE, case, image=1) < 1e-9


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_greedy_tokens_equal_those_of_the_masked_native_model(model, case):
    ours, native = gold.greedy_pair(LLAVA, model, ONE, case)
    assert ours == native


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_counts_are_measured_from_what_ran(model, case):
    measured, expected = gold.counts_of(LLAVA, model, ONE, case)
    assert measured == expected


@pytest.mark.parametrize("at", [FACE, in_llm(2)])
def test_renumbered_survivors_equal_a_plain_run_without_gaps(model, at):
    assert gold.renumbered_error(LLAVA, model, ONE, at, (1, 4, 9, 22, 30)) < 1e-5  # rotary tables are float32


def test_a_merge_with_its_size_on_the_keys_equals_a_plain_run(model):
    assert gold.merged_error(LLAVA, model, TWO, 2) < 1e-5
    assert gold.merged_error(LLAVA, model, TWO, 2, bias=False) > 1e-3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("grids", [ONE, THREE])
def test_equal_patches_that_merge_with_a_bias_count_as_they_did(grids, attention):
    kept, ours, wrong = gold.twins(LLAVA, llava(torch.float64, attention), grids)
    assert (ours - kept).abs().max() < 1e-5
    assert (wrong - kept).abs().max() > 1e-3


# Mutations: each breaks one thing; the gold test must notice.


def test_mutation_positions_of_kept_patches_not_gathered(model, monkeypatch):
    original = Llava._positions

    def broken(self, grids):
        return original(self, grids).roll(1, 0)

    monkeypatch.setattr(Llava, "_positions", broken)
    assert gold.gold_error(LLAVA, model, ONE, CASES["pixels"]) > 0.1


def test_mutation_cls_is_lost_at_the_first_cut_in_the_vit(model, monkeypatch):
    original = VisionState.select

    def broken(self, selection, kept):
        state = original(self, selection, kept)
        _, units, aggregates = state.split(state.hidden)
        bare = replace(state, segments=tuple(replace(segment, prefix=0) for segment in state.segments))
        return replace(bare, hidden=bare.join([units[:0, 0]] * len(kept), units, aggregates))

    monkeypatch.setattr(VisionState, "select", broken)
    assert gold.gold_error(LLAVA, model, ONE, CASES["vit"]) > 0.1


def test_mutation_the_unused_block_runs_too(model, monkeypatch):
    def broken(self, native):
        Family.__init__(self, native)
        original(self, native)
        self.blocks = self.tower.encoder.layers

    original = Llava.__init__
    monkeypatch.setattr(Llava, "__init__", broken)
    assert gold.native_error(LLAVA, ONE) > 0.1


def test_mutation_images_of_unequal_length_attend_to_each_other(model, monkeypatch):
    original = Llava.run_attention

    def broken(self, number, state):
        if len(set(state.lengths)) == 1:
            return original(self, number, state)
        block = self.blocks[number]
        attended = block.self_attn(hidden_states=block.layer_norm1(state.hidden)[None], attention_mask=None)[0][0]
        return replace(state, hidden=state.hidden + attended)

    monkeypatch.setattr(Llava, "run_attention", broken)
    assert gold.gold_error(LLAVA, model, THREE, CASES["vit"], image=1) > 0.1


def test_mutation_bias_of_another_image(monkeypatch):
    original = VisionState.key_bias
    monkeypatch.setattr(VisionState, "key_bias", lambda self: original(self)[::-1])
    kept, ours, _ = gold.twins(LLAVA, llava(torch.float64), THREE)
    assert (ours - kept).abs().max() > 1e-3


def test_mutation_positions_compacted_at_the_interface(model, monkeypatch):
    original = engine_module.shorten
    monkeypatch.setattr(engine_module, "shorten", lambda prompt, rows, positions: original(prompt, rows, "renumber"))
    assert gold.gold_error(LLAVA, model, ONE, CASES["interface"]) > 0.1


def test_mutation_renumbering_forgotten_at_the_interface(model, monkeypatch):
    original = engine_module.shorten
    monkeypatch.setattr(engine_module, "shorten", lambda prompt, rows, positions: original(prompt, rows, "original"))
    assert gold.renumbered_error(LLAVA, model, ONE, FACE, (1, 4, 9, 22, 30)) > 0.1


def test_mutation_llm_rope_not_gathered(model, monkeypatch):
    original = llm_module.cut

    def broken(sequence, hidden, selection, rotary, policy):
        shorter, states = original(sequence, hidden, selection, rotary, policy)
        length = states.shape[1]
        return replace(shorter, cos=sequence.cos[:, :length], sin=sequence.sin[:, :length]), states

    monkeypatch.setattr(llm_module, "cut", broken)
    assert gold.gold_error(LLAVA, model, ONE, CASES["llm"]) > 0.1
