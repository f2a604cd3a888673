"""Gold tests of Qwen2.5-VL: pruning equals the native model on all tokens with the pruned ones masked out as keys.

Windows are two units wide, so that images of odd sizes end in narrower ones and cuts leave windows empty.
"""

from dataclasses import dataclass

import gold
import pytest
import torch
from gold import Gold, cases

from harness.models.qwen2_5_vl import Qwen25VL
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
