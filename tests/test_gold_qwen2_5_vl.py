"""Gold tests of Qwen2.5-VL: pruning equals the native model on all tokens with the pruned ones masked out as keys.

Windows are two units wide, so that images of odd sizes end in narrower ones and cuts leave windows empty.
"""

from dataclasses import dataclass, replace

import gold
import pytest
import torch
from gold import Gold, cases

import harness.models.engine as engine_module
import harness.models.llm as llm_module
from harness.models.qwen2_5_vl import Qwen25VL
from harness.models.vision import VisionState
from harness.models.windows import WindowedState
from harness.validate.tiny import processed, qwen2_5_vl

ONE, ODD, THREE = ((4, 6),), ((5, 3),), ((2, 3), (4, 6), (3, 1))
CASES, ODD_CASES = cases(24), cases(15)


def windows_of(rows, columns, side=2):
    """Units of an image window by window, counted out by hand."""
    corners = [(top, left) for top in range(0, rows, side) for left in range(0, columns, side)]
    return [
        [row * columns + column for row in range(top, min(top + side, rows))
         for column in range(left, min(left + side, columns))]
        for top, left in corners
    ]  # fmt: skip


@dataclass(frozen=True)
class WindowedGold(Gold):
    """The native ViT calls attention once a window, or once an image whose units stand window by window."""

    def keys_of_block(self, number, family, inputs, gone):
        masks = []
        for mine, grid in zip(gone.split(inputs.shape.images), inputs.shape.grids, strict=True):
            of_image = [mine[torch.tensor(units)].repeat_interleave(4) for units in windows_of(*grid)]
            masks += [torch.cat(of_image)] if number % 2 else of_image
        return masks


QWEN = WindowedGold(Qwen25VL, qwen2_5_vl, processed, None)


@pytest.fixture(scope="module")
def model():
    return qwen2_5_vl(torch.float64)


@pytest.mark.parametrize("grids", [ONE, ODD, THREE, ((1, 1),), ((1, 7), (5, 1))])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_keeping_everything_is_the_native_model_bit_for_bit(grids, attention):
    assert gold.native_error(QWEN, grids, attention) == 0


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pruned_run_equals_the_native_model_with_masked_keys(model, case):
    assert gold.gold_error(QWEN, model, ONE, case) < 1e-9


@pytest.mark.parametrize("case", ODD_CASES.values(), ids=ODD_CASES)
def test_an_image_that_is_no_multiple_of_the_window(model, case):
    assert gold.gold_error(QWEN, model, ODD, case) < 1e-9


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_of_three_images_is_pruned_and_the_others_are_not(model, case):
    assert gold.gold_error(QWEN, model, THREE, case, image=1) < 1e-9


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_greedy_tokens_equal_those_of_the_masked_native_model(model, case):
    ours, native = gold.greedy_pair(QWEN, model, ONE, case)
    assert ours == native


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_counts_are_measured_from_what_ran(model, case):
    measured, expected = gold.counts_of(QWEN, model, ONE, case)
    assert measured == expected


def test_a_merge_with_its_size_on_the_keys_equals_a_plain_run(model):
    assert gold.merged_error(QWEN, model, ODD, 2) < 1e-5  # our sizes are float32
    assert gold.merged_error(QWEN, model, ODD, 2, bias=False) > 1e-3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("grids", [ODD, ((2, 3), (3, 1), (4, 6))])
def test_equal_patches_that_merge_with_a_bias_count_as_they_did(grids, attention):
    kept, ours, wrong = gold.twins(QWEN, qwen2_5_vl(torch.float64, attention), grids)
    assert (ours - kept).abs().max() < 1e-5
    assert (wrong - kept).abs().max() > 1e-3


def test_afterwards_nothing_is_left_on_the_model(model):
    batch, pruner = QWEN.batch(model, ODD), gold.scripted(ODD_CASES["all together"])
    engine = QWEN.engine(model, pruner)
    before = model(**batch).logits
    engine.prefill(engine.family.inputs(batch), pruner.whole_plan())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert torch.equal(model(**batch).logits, before)


# Mutations: each breaks one thing; the gold test must notice.


def test_mutation_windows_ignored(model, monkeypatch):
    monkeypatch.setattr(Qwen25VL, "attention_lengths", lambda self, number, state: state.lengths)
    assert gold.native_error(QWEN, ONE) > 0.1
    assert gold.gold_error(QWEN, model, ONE, CASES["vit"]) > 0.1


def test_mutation_every_block_attends_within_windows(model, monkeypatch):
    monkeypatch.setattr(Qwen25VL, "_is_full", lambda self, number: False)
    assert gold.gold_error(QWEN, model, ONE, CASES["vit"]) > 0.1


def test_mutation_survivors_close_up_to_new_windows(model, monkeypatch):
    original = WindowedState.by_window

    def broken(self):
        places = torch.arange(self.unit.shape[0])
        return replace(original(replace(self, unit=places)), unit=self.unit) if not self.windows else self

    monkeypatch.setattr(WindowedState, "by_window", broken)
    assert gold.gold_error(QWEN, model, ONE, CASES["vit"]) > 0.1


def test_mutation_rope_stays_behind_when_rows_go_to_their_windows(model, monkeypatch):
    original = WindowedState._ordered
    monkeypatch.setattr(
        WindowedState, "_ordered", lambda self, order: replace(original(self, order), cos=self.cos, sin=self.sin)
    )
    assert gold.gold_error(QWEN, model, ONE, CASES["interface"]) > 0.1


def test_mutation_rope_not_gathered_after_a_cut(model, monkeypatch):
    original = WindowedState.select

    def broken(self, selection, kept):
        smaller = original(self, selection, kept)
        return replace(smaller, cos=self.cos[: len(smaller.cos)], sin=self.sin[: len(smaller.sin)])

    monkeypatch.setattr(WindowedState, "select", broken)
    assert gold.gold_error(QWEN, model, ONE, CASES["vit"]) > 0.1


@pytest.mark.parametrize("case", ["vit", "interface"])
def test_mutation_the_way_back_taken_the_wrong_way_round(model, monkeypatch, case):
    def broken(self):
        return replace(self._ordered(torch.argsort(self.back)), windows=()) if self.windows else self

    monkeypatch.setattr(WindowedState, "in_order", broken)
    assert gold.gold_error(QWEN, model, ONE, CASES[case]) > 0.1


def test_mutation_rows_left_in_the_order_of_windows(model, monkeypatch):
    monkeypatch.setattr(WindowedState, "in_order", lambda self: replace(self, windows=()))
    assert gold.native_error(QWEN, ONE) > 0.1


def test_mutation_images_attend_to_each_other_in_full_blocks(model, monkeypatch):
    original = Qwen25VL.attention_lengths

    def broken(self, number, state):
        return (sum(state.lengths),) if self._is_full(number) else original(self, number, state)

    monkeypatch.setattr(Qwen25VL, "attention_lengths", broken)
    assert gold.gold_error(QWEN, model, THREE, CASES["interface"], image=1) > 0.1


def test_mutation_positions_compacted_at_the_interface(model, monkeypatch):
    original = engine_module.shorten
    monkeypatch.setattr(engine_module, "shorten", lambda prompt, rows, positions: original(prompt, rows, "renumber"))
    assert gold.gold_error(QWEN, model, ONE, CASES["interface"]) > 0.1


def test_mutation_llm_rope_not_gathered(model, monkeypatch):
    original = llm_module.cut

    def broken(sequence, hidden, selection, rotary, policy):
        shorter, states = original(sequence, hidden, selection, rotary, policy)
        length = states.shape[1]
        return replace(shorter, cos=sequence.cos[:, :length], sin=sequence.sin[:, :length]), states

    monkeypatch.setattr(llm_module, "cut", broken)
    assert gold.gold_error(QWEN, model, ONE, CASES["llm"]) > 0.1


def test_mutation_bias_of_another_window(monkeypatch):
    original = VisionState.key_bias
    monkeypatch.setattr(VisionState, "key_bias", lambda self: [bias.flip(0) for bias in original(self)])
    kept, ours, _ = gold.twins(QWEN, qwen2_5_vl(torch.float64), ONE)
    assert (ours - kept).abs().max() > 1e-3
