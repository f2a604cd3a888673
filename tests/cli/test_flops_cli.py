"""`harness flops`: exact numbers of real sizes without a weight, against torch's own counter."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from commands import Command, commands_in
from tiny_catalogue import tiny_entry, write_entry
from torch.utils.flop_counter import FlopCounterMode

from harness.benchmarks.synthetic import SyntheticScene
from harness.budget.spec import BudgetSpec
from harness.flops.table import Unloaded, flops_rows, unloaded
from harness.models import catalogue


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return commands_in(tmp_path, monkeypatch, capsys)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A catalogue of one tiny model."""
    write_entry(tmp_path, tiny_entry())
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    return "qwen3-vl-tiny"


@torch.no_grad()
def counted(model: Unloaded, scene: SyntheticScene) -> int:
    """What torch counts of the family's own modules: tower and projector block by block, then the native LLM."""
    family, inputs = model.family, model.inputs(scene)
    length = inputs.prompt.length
    with FlopCounterMode(display=False) as counter:
        state = family.embed(inputs, None)
        for number in range(family.vit_layers):
            state = family.run_mlp(number, family.run_attention(number, state))
        family.project(state)
        width = model.dims.llm_width
        hidden = family.model.model.language_model(
            inputs_embeds=torch.zeros(1, length, width, device="meta"),
            position_ids=inputs.prompt.positions[:, None] if family.rope == "mrope" else inputs.prompt.positions,
            attention_mask=torch.zeros(1, 1, length, length, device="meta"),  # taken as it is, never looked at
        ).last_hidden_state
        family.model.lm_head(hidden[:, -1:])
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("name", "image"),
    [("qwen3-vl-2b", "1024"), ("qwen2.5-vl-3b", "448"), ("internvl3-1b", "896"), ("llava-1.5-7b", "336")],
)
def test_the_unpruned_total_of_a_real_size_is_what_torch_counts(name: str, image: str):
    model, scene = unloaded(name), SyntheticScene.parse(image)
    [row] = flops_rows(model, ["full"], [], [scene])
    assert row["total_flops"] == counted(model, scene)


def test_all_methods_on_a_real_size_take_seconds(harness: Command):
    began = time.process_time()
    said = harness("flops", "--model", "qwen3-vl-2b", "--budgets", "50%,25%", "--image-size", "1024", "--json")
    assert time.process_time() - began < 30 and said.code == 0
    rows = {(row["method"], row["budget"]): row for row in said.document}
    assert rows["full", "100%"]["flops_ratio"] == 1.0
    assert {row["status"] for row in said.document} == {"ok"}
    assert rows["divprune", "50%"]["vit_flops"] == rows["full", "100%"]["vit_flops"]
    assert rows["quietprune", "25%"]["flops_ratio"] < rows["quietprune", "50%"]["flops_ratio"] < 0.6
    stages = ("vit_flops", "projector_flops", "select_flops", "llm_flops")
    assert all(row["total_flops"] == sum(row[stage] for stage in stages) for row in said.document)


def test_the_papers_formulas_by_hand(tiny: str):
    [row] = flops_rows(unloaded(tiny), ["full"], [], [SyntheticScene(64, 64, text_tokens=10)])
    n, d, m, layers = row["visual_tokens"] + row["text_tokens"], 32, 48, 6
    assert row["visual_tokens"] == 4
    assert row["paper_2ndm_flops"] == layers * (4 * n * d * d + 2 * n * n * d + 2 * n * d * m)
    assert row["paper_3ndm_flops"] == layers * (4 * n * d * d + 2 * n * n * d + 3 * n * d * m)


def test_what_cannot_be_is_said_in_words(harness: Command, tiny: str):
    said = harness("flops", "--model", tiny, "--methods", "fastv", "--budgets", "10%", "--image-size", "256")
    assert said.code == 0
    assert "infeasible" in said.out and "fastv at 10% is infeasible: fastv needs >= " in said.err


def test_a_flops_ratio_is_met(tiny: str):
    budget = BudgetSpec.parse("flops_ratio:0.7")
    _, row = flops_rows(unloaded(tiny), ["quietprune"], [budget], [SyntheticScene(512, 512)])
    assert row["flops_ratio"] == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "--model qwen3-vl-2b"),
        (("--model", "qwen3-vl-2"), "qwen3-vl-2b"),
        (("--model", "qwen3-vl-2b", "--methods", "fastw"), "fastv"),
        (("--model", "qwen3-vl-2b", "--budgets", "native"), "native"),
        (("--model", "qwen3-vl-2b", "--image-size", "4x5x6"), "640x480"),
        (("--model", "qwen3-vl-2b", "--image-size", "90000"), "smaller"),
    ],
)
def test_a_wrong_word_is_a_usage_error(harness: Command, words: tuple[str, ...], complaint: str):
    said = harness("flops", *words)
    assert said.code == 2 and complaint in said.complaint
