"""The gate's selectors keep what they say, and what they drop cannot reach the answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.reference.suite import Question
from harness.reference_training.architecture import new_model
from harness.reference_training.gate import SELECTORS, _hiding, farthest_points, kept_tokens, rows
from harness.reference_training.packed import PackedModel, layout

# The box covers all of token 9 (row 1, column 1) and a quarter of token 10.
QUESTION = Question("read-0", "images/0.webp", "read", "number on the red sign?", "47", ((32, 32, 72, 64),))


def keep(selector, count, seed=0):
    tokens = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    return kept_tokens(selector, QUESTION, tokens, count, np.random.default_rng(seed))


def test_farthest_points_spread_by_cosine():
    tokens = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    assert farthest_points(tokens, 1) == [3]
    assert farthest_points(tokens, 3) == [3, 0, 2]


def test_the_oracle_keeps_the_target_and_the_anti_oracle_nothing_of_it():
    assert keep("oracle", 1) == [9]
    assert keep("oracle", 2) == [9, 10]
    assert {9, 10} < set(keep("oracle", 16))
    for seed in range(20):
        assert not {9, 10} & set(keep("anti-oracle", 62, seed))


@pytest.mark.parametrize("selector", SELECTORS)
def test_every_selector_keeps_as_many_different_tokens_as_asked(selector):
    assert len(set(keep(selector, 16))) == 16


def test_an_unknown_selector_is_refused_by_name():
    with pytest.raises(ValueError, match="oracle"):
        keep("best", 3)


@torch.inference_mode()
def test_what_is_dropped_cannot_reach_the_answer():
    packed = PackedModel(new_model(seed=5))
    tables = layout(packed.native, 64, 1, 6)
    generator = torch.Generator().manual_seed(1)
    tokens, deep = torch.randn(2, 1, 4, 128, generator=generator)
    questions = torch.randint(10, 400, (1, 1, 6), generator=generator)
    hidden = replace(tables, mask=_hiding(tables.mask, [[0, 3]], 4))
    before = packed.answer(tokens, deep, questions, hidden)
    for dropped, moves in ((1, False), (2, False), (3, True)):
        other = tokens.clone()
        other[:, dropped] += 1.0
        moved = (packed.answer(other, deep, questions, hidden) - before).abs().max() > 1e-4
        assert bool(moved) is moves


def test_the_table_states_the_gap_between_oracle_and_farthest():
    found = {(s, b): 0.5 for s in SELECTORS for b in ("50 %", "25 %", "11 %")} | {("oracle", "25 %"): 0.75}
    assert list(rows(found))[-1] == "| oracle - farthest | 0.0 | 25.0 | 0.0 |"
