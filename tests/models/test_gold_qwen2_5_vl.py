"""Gold tests of Qwen2.5-VL: pruning equals the native model on all tokens with the pruned ones masked out as keys.

Windows are two units wide, so that images of odd sizes end in narrower ones and cuts leave windows empty.
"""

from dataclasses import dataclass, replace

import gold
import pytest
import torch
from gold import Gold, cases
from gold_cases import GoldCases

from harness.models.families.qwen2_5_vl import Qwen25VL, WindowedState
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


class TestQwen25VL(GoldCases):
    gold, one, several, twice, cases = QWEN, ONE, THREE, (ODD, ((2, 3), (3, 1), (4, 6))), CASES


@pytest.fixture(scope="module")
def model():
    return qwen2_5_vl(torch.float64)


@pytest.mark.parametrize("grids", [ONE, ODD, THREE, ((1, 1),), ((1, 7), (5, 1))])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_keeping_everything_is_the_native_model_bit_for_bit(grids, attention):
    assert gold.native_error(QWEN, grids, attention) == 0


@pytest.mark.parametrize("case", ODD_CASES.values(), ids=ODD_CASES)
def test_an_image_that_is_no_multiple_of_the_window(model, case):
    assert gold.gold_error(QWEN, model, ODD, case) < 1e-9


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
