"""The gold tests that families share, as a base of test classes: a family says which prompts it is held to.

Mutations break one thing each, and a gold test must notice.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import gold
import pytest
import torch
from gold import FACE, Case, Gold
from tiny import in_llm

import harness.models.decoder as llm_module
import harness.models.engine as engine_module
from harness.models.vision_state import VisionState
from harness.validate.tiny import Grids

NAMES = list(gold.cases(12))
RENUMBERED = (1, 4, 9, 22, 30)  # units that stay


class GoldCases:
    """one: a prompt of one picture, whose image `pruned` has as many units as the cases are of; several: a prompt of
    several; image 1 of it is pruned. twice: prompts of which the last image's units are doubled."""

    gold: ClassVar[Gold]
    one: ClassVar[Grids]
    several: ClassVar[Grids]
    twice: ClassVar[tuple[Grids, ...]]
    cases: ClassVar[dict[str, Case]]
    pruned: ClassVar[int] = 0

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls):
        return cls.gold.build(torch.float64)

    def error(self, model, name: str) -> float:
        return gold.gold_error(self.gold, model, self.one, self.cases[name], self.pruned)

    @pytest.mark.parametrize("name", NAMES)
    def test_pruned_run_equals_the_native_model_with_masked_keys(self, model, name):
        assert self.error(model, name) < 1e-9

    @pytest.mark.parametrize("name", NAMES)
    def test_one_of_several_images_is_pruned_and_the_others_are_not(self, model, name):
        assert gold.gold_error(self.gold, model, self.several, self.cases[name], image=1) < 1e-9

    @pytest.mark.parametrize("name", NAMES)
    def test_greedy_tokens_equal_those_of_the_masked_native_model(self, model, name):
        ours, native = gold.greedy_pair(self.gold, model, self.one, self.cases[name], self.pruned)
        assert ours == native

    @pytest.mark.parametrize("name", NAMES)
    def test_counts_are_measured_from_what_ran(self, model, name):
        measured, expected = gold.counts_of(self.gold, model, self.one, self.cases[name], self.pruned)
        assert measured == expected

    def test_a_merge_with_its_size_on_the_keys_equals_a_plain_run(self, model):
        assert gold.merged_error(self.gold, model, self.twice[0], 2) < 1e-5  # our sizes are float32
        assert gold.merged_error(self.gold, model, self.twice[0], 2, bias=False) > 1e-3

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_equal_units_that_merge_with_a_bias_count_as_they_did(self, attention):
        for grids in self.twice:
            kept, ours, wrong = gold.twins(self.gold, self.gold.build(torch.float64, attention), grids)
            assert (ours - kept).abs().max() < 1e-5
            assert (wrong - kept).abs().max() > 1e-3

    def test_afterwards_nothing_is_left_on_the_model(self, model):
        batch, pruner = self.gold.batch(model, self.one), gold.scripted(self.cases["all together"], self.pruned)
        engine = self.gold.engine(model, pruner)
        before = model(**batch).logits
        hooks = [(len(part._forward_pre_hooks), len(part._forward_hooks)) for part in model.modules()]
        engine.prefill(engine.family.inputs(batch), pruner.whole_plan())
        assert hooks == [(len(part._forward_pre_hooks), len(part._forward_hooks)) for part in model.modules()]
        assert torch.equal(model(**batch).logits, before)

    def test_mutation_positions_compacted_at_the_interface(self, model, monkeypatch):
        original = engine_module.shorten
        monkeypatch.setattr(engine_module, "shorten", lambda prompt, rows, given: original(prompt, rows, "renumber"))
        assert self.error(model, "interface") > 0.1

    def test_mutation_llm_rope_not_gathered(self, model, monkeypatch):
        original = llm_module.cut

        def broken(sequence, hidden, selection, rotary, policy):
            shorter, states = original(sequence, hidden, selection, rotary, policy)
            length = states.shape[1]
            return replace(shorter, cos=sequence.cos[:, :length], sin=sequence.sin[:, :length]), states

        monkeypatch.setattr(llm_module, "cut", broken)
        assert self.error(model, "llm") > 0.1

    def test_mutation_bias_of_another_token(self, monkeypatch):
        original = VisionState.key_bias

        def broken(self):
            biases = original(self)
            return biases[::-1] if len(biases) > 1 else [bias.flip(0) for bias in biases]

        monkeypatch.setattr(VisionState, "key_bias", broken)
        kept, ours, _ = gold.twins(self.gold, self.gold.build(torch.float64), self.twice[0])
        assert (ours - kept).abs().max() > 1e-3


class ClsTowerCases(GoldCases):
    """Families whose tower has a CLS and whose LLM has one-dimensional positions."""

    @pytest.mark.parametrize("at", [FACE, in_llm(2)])
    def test_renumbered_survivors_equal_a_plain_run_without_gaps(self, model, at):
        assert gold.renumbered_error(self.gold, model, self.one, at, RENUMBERED) < 1e-5  # rotary tables are float32

    def test_mutation_renumbering_forgotten_at_the_interface(self, model, monkeypatch):
        original = engine_module.shorten
        monkeypatch.setattr(engine_module, "shorten", lambda prompt, rows, given: original(prompt, rows, "original"))
        assert gold.renumbered_error(self.gold, model, self.one, FACE, RENUMBERED) > 0.1

    def test_mutation_cls_is_lost_at_the_first_cut_in_the_vit(self, model, monkeypatch):
        original = VisionState.select

        def broken(self, selection, kept):
            state = original(self, selection, kept)
            _, units, aggregates = state.split(state.hidden)
            bare = replace(state, segments=tuple(replace(segment, prefix=0) for segment in state.segments))
            return replace(bare, hidden=bare.join([units[:0, 0]] * len(kept), units, aggregates))

        monkeypatch.setattr(VisionState, "select", broken)
        assert self.error(model, "vit") > 0.01
