"""Self-distillation of an adapter: what learns, what does not, and how it is kept."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from tiny import processed, qwen3_vl

from harness.adapter_training.adapter import (
    Recipe,
    answer_logits,
    distillation_losses,
    frozen,
    plan_for,
    save_adapter,
    schedule,
    train,
)
from harness.adapter_training.examples import open_examples
from harness.adapter_training.guidance import guidance_loss, watching_answers, watching_cuts
from harness.cli import main
from harness.models.engine import Engine
from harness.models.families.family import Family
from harness.models.families.qwen3_vl import Qwen3VL
from harness.models.families.registry import family_class
from harness.models.loading import OpenModel, WrongAdapter, load_adapter
from harness.records.errors import UsageError
from harness.validate.tiny import TINY, Grids
from methods.quietprune import QuietPrune
from methods.random import Random

PRUNER = QuietPrune(adapter="untrained")


@dataclass(frozen=True)
class Exam:
    """Stands for an open model: every example is a made-up prompt whose last two tokens are the answer."""

    family: Family
    processed: Callable = processed
    grids: Grids = ((3, 4),)

    def prepare_answered(self, images, question, answer):
        inputs = self.family.inputs(self.processed(self.grids, seed=question))
        return inputs, inputs.prompt.input_ids[0, -2:]


@dataclass(frozen=True)
class Asked:
    question: int
    images: tuple = ()
    answer: str = ""


def stream(seed):
    number = seed % 7
    while True:
        yield Asked(number)
        number = (number + 1) % 7


@pytest.fixture
def exam():
    return Exam(Qwen3VL(qwen3_vl()))


def test_only_the_adapter_learns_and_the_loss_falls(exam, tmp_path):
    before = {name: value.clone() for name, value in exam.family.model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in exam.family.model.parameters()]
    steps = []
    recipe = Recipe(steps=12, batch=4, learning_rate=3e-3)
    out = train(exam, PRUNER, lambda seed: stream(0), recipe, tmp_path / "a.safetensors", steps.append)
    assert all(torch.equal(value, before[name]) for name, value in exam.family.model.state_dict().items())
    assert [parameter.requires_grad for parameter in exam.family.model.parameters()] == flags
    assert all(step.gradient_norm > 0 for step in steps)
    losses = [step.cross_entropy + step.kl for step in steps]
    assert sum(losses[-3:]) < sum(losses[:3])
    trained = load_adapter(out, exam.family.info.projector_hash)
    initial = Engine(exam.family, PRUNER).prepared.state_dict()
    assert any(not torch.equal(trained[name], initial[name]) for name in initial)


def test_the_guidance_term_turns_the_extra_token_to_where_the_llm_looks(exam, tmp_path):
    steps = []
    recipe = Recipe(steps=15, batch=4, learning_rate=3e-3, guidance_weight=1.0)
    train(exam, PRUNER, lambda seed: stream(0), recipe, tmp_path / "a.safetensors", steps.append)
    assert sum(step.guidance for step in steps[-3:]) < 0.9 * sum(step.guidance for step in steps[:3])


@pytest.mark.parametrize(("layers", "chosen"), [("all", slice(0, 4)), ("middle", slice(1, 3))])
def test_the_teacher_is_the_mean_attention_of_the_chosen_layers(layers: str, chosen: slice):
    native = qwen3_vl(llm_layers=4)
    native.set_attn_implementation("eager")
    family, batch = Qwen3VL(native), processed(((3, 4),))
    engine, inputs = Engine(family, None), family.inputs(batch)
    with watching_answers(engine, inputs, 2, layers) as relevance, torch.no_grad():
        answer_logits(engine, inputs, 2, plan_for(engine, inputs, 1.0))
    with torch.no_grad():
        attention = torch.stack(native(**batch, output_attentions=True).attentions)[chosen]  # (layers, 1, heads, T, T)
    row = attention.mean((0, 1, 2))[inputs.prompt.length - 3, inputs.prompt.visual_index]
    torch.testing.assert_close(relevance[0], row / row.sum())


def test_guidance_is_refused_where_images_are_cut_into_tiles(tmp_path):
    family = family_class("llava_next")(TINY["llava_next"].build(llm_layers=2))
    exam, steps = Exam(family, TINY["llava_next"].processed, ((6, 12),)), []
    with pytest.raises(UsageError, match="--guidance-weight 0"):
        train(exam, PRUNER, stream, Recipe(1, 1, guidance_weight=0.5), tmp_path / "a.safetensors", steps.append)
    assert not steps
    train(exam, PRUNER, stream, Recipe(1, 1), tmp_path / "a.safetensors", steps.append)
    assert steps[0].gradient_norm > 0 and math.isnan(steps[0].guidance)


def test_a_trained_adapter_is_used_and_a_wrong_base_is_refused(exam, tmp_path):
    out = train(exam, PRUNER, stream, Recipe(steps=1, batch=1), tmp_path / "a.safetensors")
    tensors = load_adapter(out, exam.family.info.projector_hash)
    Engine(exam.family, QuietPrune(), tensors)
    other = qwen3_vl()
    other.model.visual.merger.linear_fc1.weight.data[0, 0] += 1
    with pytest.raises(WrongAdapter, match="trained on another base model"):
        load_adapter(out, Qwen3VL(other).info.projector_hash)
    with safe_open(out, framework="pt") as opened:
        assert opened.metadata()["method"] == "quietprune"


def test_a_stopped_training_continues_to_the_same_adapter(exam, tmp_path):
    recipe = Recipe(steps=24, batch=1, learning_rate=1e-3)
    whole = train(exam, PRUNER, stream, recipe, tmp_path / "whole.safetensors")

    def stop_after_21(step):
        if step.step == 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(exam, PRUNER, stream, recipe, tmp_path / "parts.safetensors", stop_after_21)
    with pytest.raises(UsageError, match="another recipe"):
        train(exam, PRUNER, stream, replace(recipe, batch=2), tmp_path / "parts.safetensors")
    resumed = []
    parts = train(exam, PRUNER, stream, recipe, tmp_path / "parts.safetensors", resumed.append)
    assert resumed[0].step == 21
    key = exam.family.info.projector_hash
    assert all(torch.equal(value, load_adapter(parts, key)[name]) for name, value in load_adapter(whole, key).items())


def test_gradients_equal_finite_differences():
    exam = Exam(Qwen3VL(qwen3_vl(torch.float64)))
    batch = processed(((3, 4),), seed=3)
    inputs = exam.family.inputs({**batch, "pixel_values": batch["pixel_values"].double()})
    engine = Engine(exam.family, PRUNER)
    adapter = engine.prepared.double()
    whole = Engine(exam.family, None)
    teacher = answer_logits(whole, inputs, 2, plan_for(whole, inputs, 1.0))[0].detach()
    answer = inputs.prompt.input_ids[0, -2:]

    def loss():
        plan = plan_for(engine, inputs, 0.42)
        with watching_answers(whole, inputs, 2) as relevance, torch.no_grad():
            answer_logits(whole, inputs, 2, plan_for(whole, inputs, 1.0))
        with watching_cuts(engine, plan) as captures:
            ours, trace = answer_logits(engine, inputs, 2, plan)
        ce, kl = distillation_losses(ours, teacher, answer)
        return ce + kl + guidance_loss(captures, plan, trace, relevance)

    weight = adapter.inverse_1.weight
    with frozen(exam.family.model):
        weight.requires_grad_(True)
        loss().backward()
        direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        slope = (weight.grad * direction).sum().item()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * 1e-3 * direction
                values.append(loss().item())
                weight -= sign * 1e-3 * direction
    measured = (values[0] - values[1]) / 2e-3
    assert abs(slope) > 1e-4
    assert slope == pytest.approx(measured, rel=0.05)  # the losses are float32


def test_a_student_that_keeps_everything_has_nothing_to_learn(exam):
    inputs, answer = exam.prepare_answered((), 2, "")
    whole, same = Engine(exam.family, None), Engine(exam.family, PRUNER)
    teacher, _ = answer_logits(whole, inputs, 2, plan_for(whole, inputs, 1.0))
    student, _ = answer_logits(same, inputs, 2, plan_for(same, inputs, 1.0))
    assert distillation_losses(student, teacher, answer)[1].item() == pytest.approx(0.0, abs=1e-7)


def test_losses_by_hand():
    teacher, student = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, torch.log(torch.tensor(3.0))]])
    ce, kl = distillation_losses(student, teacher, torch.tensor([0]))
    assert ce.item() == pytest.approx(1.3863, abs=1e-4)  # -log(1/4)
    assert kl.item() == pytest.approx(0.1438, abs=1e-4)  # log(1/2) - (log(1/4) + log(3/4)) / 2


def test_the_rate_warms_up_and_ends_near_zero():
    recipe = Recipe(steps=100, warmup_ratio=0.1)
    assert schedule(0, recipe) == pytest.approx(0.1)
    assert schedule(10, recipe) == pytest.approx(1.0)
    assert schedule(99, recipe) < 0.01


def test_a_method_without_an_adapter_is_refused(exam, tmp_path):
    with pytest.raises(UsageError, match="random has no adapter"):
        train(exam, Random(), stream, Recipe(steps=1), tmp_path / "a.safetensors")


def test_examples_of_a_file_are_a_seeded_endless_stream(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    lines = [{"image": "a.png", "question": f"q{i}", "answer": str(i)} for i in range(3)]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    stream = open_examples(str(path))(5)
    questions = [next(stream).question for _ in range(6)]
    assert sorted(questions[:3]) == sorted(questions[3:]) == ["q0", "q1", "q2"]
    path.write_text('{"image": "a.png", "question": "q"}')
    with pytest.raises(UsageError, match="needs image"):
        next(open_examples(str(path))(0))
    with pytest.raises(UsageError, match="no training data"):
        open_examples("nowhere")


def test_a_retrained_adapter_changes_what_a_run_is(exam, tmp_path):
    """The adapter lies beside the weights; its hash is what `RunSpec.adapter` holds."""
    exam.family.info = replace(exam.family.info, folder=str(tmp_path))
    opened = OpenModel("tiny", "r", exam.family.model, None, exam.family, "float32", "cpu", "sdpa", "pil")
    trained = QuietPrune()
    assert opened.adapter_revision(trained) == ""
    train(exam, PRUNER, stream, Recipe(steps=1, batch=1), tmp_path / "quietprune.safetensors")
    first = opened.adapter_revision(trained)
    train(exam, PRUNER, stream, Recipe(steps=2, batch=1), tmp_path / "quietprune.safetensors")
    assert first and opened.adapter_revision(trained) not in ("", first)
    assert opened.adapter_revision(PRUNER) == opened.adapter_revision(None) == ""  # they do not use it


def test_an_adapter_that_leaves_float16_is_refused_and_nothing_is_written(tmp_path):
    adapter = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(adapter.weight, 1e6)
    with pytest.raises(UsageError, match="weight left float16's range"):
        save_adapter(tmp_path / "a.safetensors", adapter, "hash", "quietprune", Recipe())
    assert not list(tmp_path.iterdir())


def test_the_command_trains_on_a_file_and_writes_an_adapter(tmp_path, monkeypatch):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    (tmp_path / "data.jsonl").write_text('{"image": "a.png", "question": "color of the sun?", "answer": "red"}')
    out = tmp_path / "quietprune.safetensors"
    words = ["--data", str(tmp_path / "data.jsonl"), "--steps", "1", "--batch", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["harness", "train-adapter", *words])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 0
    with safe_open(out, framework="pt") as opened:
        assert '"steps": 1' in opened.metadata()["recipe"]


@pytest.mark.parametrize("family", list(TINY))
def test_gradients_of_every_family_are_those_of_finite_differences(family):
    """The published loss's way: from the answer's logits through LLM, aggregate and joint attention to the adapter."""
    kind = family_class(family)(TINY[family].build(torch.float64))
    engine = Engine(kind, PRUNER)
    inputs = kind.inputs(TINY[family].processed(TINY[family].one_image[0]))
    adapter, plan = engine.prepared, plan_for(engine, inputs, 0.4)
    adapter.requires_grad_(True)
    aim = torch.randn(2, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss():
        logits, trace = answer_logits(engine, inputs, 2, plan)
        return (logits * aim).sum(), {site: units.tolist() for site, (_, units) in trace.kept.items()}

    with frozen(kind.model):
        value, kept = loss()
        value.backward()
        weight = adapter.inverse_2.weight
        direction = weight.grad / weight.grad.norm()
        values = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                weight += step * direction
                moved, kept_now = loss()
                weight -= step * direction
            assert kept_now == kept
            values.append(moved.item())
    assert weight.grad.norm() > 1e-4
    assert (values[0] - values[1]) / 2e-3 == pytest.approx(weight.grad.norm().item(), rel=0.02)
