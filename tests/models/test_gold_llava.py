"""Gold tests of LLaVA-1.5: pruning equals the native model on all tokens with the pruned ones masked out as keys."""

from dataclasses import replace

import gold
import pytest
import torch
from gold import Gold, cases
from gold_cases import ClsTowerCases

from harness.models.families.family import Family
from harness.models.families.llava import Llava
from harness.validate.tiny import llava, llava_processed

ONE, THREE = ((6, 6),), ((6, 6),) * 3
CASES = cases(36)


def vit_keys(family, inputs, gone):
    """CLS is always there; images are one batch."""
    rows = gone.view(len(inputs.shape.grids), -1)
    return torch.nn.functional.pad(rows, (1, 0))


LLAVA = Gold(Llava, llava, llava_processed, vit_keys)


class TestLlava(ClsTowerCases):
    gold, one, several, twice, cases = LLAVA, ONE, THREE, (THREE, ONE), CASES


@pytest.fixture(scope="module")
def model():
    return llava(torch.float64)


@pytest.mark.parametrize("grids", [ONE, THREE])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_keeping_everything_is_the_native_model_bit_for_bit(grids, attention):
    assert gold.native_error(LLAVA, grids, attention) == 0


# Mutations: each breaks one thing; the gold test must notice.


def test_mutation_positions_of_kept_patches_not_gathered(model, monkeypatch):
    original = Llava._positions

    def broken(self, grids):
        return original(self, grids).roll(1, 0)

    monkeypatch.setattr(Llava, "_positions", broken)
    assert gold.gold_error(LLAVA, model, ONE, CASES["pixels"]) > 0.1


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
