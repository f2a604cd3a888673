"""Gold tests of InternVL: pruning equals the native model on all tokens with the pruned ones masked out as keys.

A unit is 2 x 2 patches, an image of the harness is a tile. Logits of float64 runs, whose LLM norms round to float32.
"""

from dataclasses import replace

import gold
import pytest
import torch
from gold import FACE, Gold, cases
from tiny import Scripted, in_llm

import harness.models.engine as engine_module
import harness.models.internvl as family_module
import harness.models.llm as llm_module
from harness.models.internvl import InternVL
from harness.models.vision import VisionState
from harness.validate.tiny import internvl, internvl_processed
from methods.base import IN_VIT, Selection, Signal, Site

ONE, TWO, THREE = ((6, 6),), ((6, 6),) * 2, ((6, 6),) * 3
CASES = cases(36)


def vit_keys(family, inputs, gone):
    """CLS is always there; tiles are one batch; the native tower holds patches in raster order."""
    rows, columns = inputs.shape.grids[0]
    patches = gone.view(-1, rows, columns).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
    return torch.nn.functional.pad(patches, (1, 0))


INTERNVL = Gold(InternVL, internvl, internvl_processed, vit_keys)


@pytest.fixture(scope="module")
def model():
    return internvl(torch.float64)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("grids", [ONE, THREE])
def test_keeping_everything_is_the_native_model_to_rounding(grids, attention):
    assert gold.native_error(INTERNVL, grids, attention) < 5e-5
    assert gold.native_error(INTERNVL, grids, attention, torch.float64) < 1e-12


OTHERS = {
    "query and key norms": {"use_qk_norm": True},
    "rms norms, biases": {"norm_type": "rms_norm", "attention_bias": True},
    "a norm behind the tower": {"use_mean_pooling": False},
}


@pytest.mark.parametrize("vision", OTHERS.values(), ids=OTHERS)
def test_other_towers_of_the_family(vision):
    build = lambda dtype, attention="sdpa": internvl(dtype, attention, **vision)  # noqa: E731
    other = replace(INTERNVL, build=build)
    assert gold.native_error(other, TWO, dtype=torch.float64) < 1e-5  # the norms round to float32
    assert gold.gold_error(other, build(torch.float64), TWO, CASES["all together"]) < 1e-5


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pruned_run_equals_the_native_model_with_masked_keys(model, case):
    assert gold.gold_error(INTERNVL, model, ONE, case) < 1e-9


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_of_three_tiles_is_pruned_and_the_others_are_not(model, case):
    assert gold.gold_error(INTERNVL, model, THREE, case, image=1) < 1e-9


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_greedy_tokens_equal_those_of_the_masked_native_model(model, case):
    ours, native = gold.greedy_pair(INTERNVL, model, ONE, case)
    assert ours == native


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_counts_are_measured_from_what_ran(model, case):
    measured, expected = gold.counts_of(INTERNVL, model, ONE, case)
    assert measured == expected


@pytest.mark.parametrize("at", [FACE, in_llm(2)])
def test_renumbered_survivors_equal_a_plain_run_without_gaps(model, at):
    assert gold.renumbered_error(INTERNVL, model, ONE, at, (1, 4, 9, 22, 30)) < 1e-5  # rotary tables are float32


def test_a_merge_with_its_size_on_the_keys_equals_a_plain_run(model):
    assert gold.merged_error(INTERNVL, model, TWO, 2) < 1e-5
    assert gold.merged_error(INTERNVL, model, TWO, 2, bias=False) > 1e-3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("grids", [ONE, THREE])
def test_equal_units_that_merge_with_a_bias_count_as_they_did(grids, attention):
    kept, ours, wrong = gold.twins(INTERNVL, internvl(torch.float64, attention), grids)
    assert (ours - kept).abs().max() < 1e-5
    assert (wrong - kept).abs().max() > 1e-3
