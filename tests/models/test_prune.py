"""`harness.prune` in somebody's own code."""

import threading

import pytest
import torch
from tiny import Scripted, in_llm, keep_units, processed, qwen3_vl
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.budget.spec import BudgetError
from harness.models.prune import prune
from harness.records.errors import UsageError
from methods.base import BudgetInfeasible, UnknownMethod


@pytest.fixture
def model():
    return qwen3_vl()


def greedy(model, batch, **options):
    return model.generate(**batch, max_new_tokens=6, do_sample=False, **options)


def test_generate_returns_the_full_prompt_followed_by_new_tokens(model):
    batch = processed()
    with prune(model, "divprune", budget=0.5) as pruning:
        out = greedy(model, batch)
    length = batch["input_ids"].shape[1]
    assert torch.equal(out[:, :length], batch["input_ids"])
    assert 1 <= out.shape[1] - length <= 6
    assert pruning.realised.entering == (12,) * 6


def test_the_model_is_left_exactly_as_it_was(model):
    batch = processed()
    before, own = model(**batch).logits, dict(vars(model))
    with prune(model, "fastv", budget=0.5):
        greedy(model, batch)
    assert torch.equal(model(**batch).logits, before)
    assert vars(model) == own
    assert ALL_ATTENTION_FUNCTIONS._local_mapping == {}
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_budget_of_everything_is_the_native_answer(model):
    batch = processed(((2, 3), (4, 6)))
    native = greedy(model, batch)
    for method in ("random", "divprune", "fastv", "grid"):
        with prune(model, method, budget=1.0):
            assert torch.equal(greedy(model, batch), native)
            assert torch.equal(model(**batch).logits, model(**batch).logits)


def test_forward_inside_is_pruned_too_and_refuses_labels(model):
    batch = processed()
    with prune(model, "random", budget=6):
        assert model(**batch).logits.shape[1] == batch["input_ids"].shape[1] - 18
        with pytest.raises(ValueError, match="labels cannot be used"):
            model(**batch, labels=batch["input_ids"])


def test_text_without_images_passes_through(model):
    text = {"input_ids": torch.tensor([[3, 4, 5]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}
    native = greedy(model, text)
    with prune(model, "random", budget=0.5):
        assert torch.equal(greedy(model, text), native)


def test_the_inner_of_two_nested_blocks_counts_and_the_outer_comes_back(model):
    batch = processed()
    with prune(model, "random", budget=12) as outer:
        with prune(model, "grid", budget=4) as inner:
            greedy(model, batch)
        assert inner.realised.entering[0] == 4 and outer.realised is None
        greedy(model, batch)
        assert outer.realised.entering[0] == 12


def test_two_models_in_two_threads_do_not_meet():
    models, out = [qwen3_vl(), qwen3_vl()], {}
    batch = processed()
    with prune(models[0], "fastv", budget=0.5):
        alone = greedy(models[0], batch)
    start = threading.Barrier(2)

    def work(which):
        with prune(models[which], "fastv", budget=0.5):
            start.wait()
            out[which] = [greedy(models[which], batch) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(answer, alone) for answers in out.values() for answer in answers)
    assert ALL_ATTENTION_FUNCTIONS._local_mapping == {}


def test_beams_and_dictionaries_work(model):
    batch = processed()
    pruner = Scripted({in_llm(2): keep_units(1, 5, 9), in_llm(4): keep_units(5, 9)})
    with prune(model, pruner, budget="native"):
        out = greedy(model, batch, num_beams=3, num_return_sequences=2, return_dict_in_generate=True)
        one = greedy(model, batch)
    assert out.sequences.shape[0] == 2
    assert torch.equal(out.sequences[0, : batch["input_ids"].shape[1]], batch["input_ids"][0])
    assert one.shape[0] == 1


def test_max_length_counts_the_full_prompt(model):
    batch = processed()
    limit = batch["input_ids"].shape[1] + 3
    with prune(model, "random", budget=4):
        out = model.generate(**batch, max_length=limit, min_length=limit, do_sample=False)
    assert out.shape[1] == limit


@pytest.mark.parametrize(
    ("method", "budget", "error", "words"),
    [
        ("fastvv", 0.5, UnknownMethod, "nearest: fastv"),
        ("fastv", 1.5, BudgetError, "out of range"),
        ("fastv", "flops_ratio:0.5", ValueError, "harness run"),
    ],
)
def test_bad_words_are_refused_before_anything_changes(model, method, budget, error, words):
    with pytest.raises(error, match=words), prune(model, method, budget=budget):
        raise AssertionError("the block must not open")
    assert "generate" not in vars(model)


def test_a_budget_below_the_floor_names_the_floor(model):
    with prune(model, "fastv", budget=1), pytest.raises(BudgetInfeasible, match="needs >= 4 of 24"):
        greedy(model, processed())


def test_a_prompt_may_be_padded_on_the_left(model):
    batch = processed()
    filler = torch.zeros(1, 3, dtype=torch.int64)
    padded = batch | {key: torch.cat([filler, batch[key]], 1) for key in ("input_ids", "attention_mask")}
    with prune(model, "random", budget=0.5):
        alone, out = greedy(model, batch), greedy(model, padded)
    assert torch.equal(out, torch.cat([filler, alone], 1))


def test_an_unknown_family_is_refused():
    with pytest.raises(UsageError, match="cannot prune a Linear"), prune(torch.nn.Linear(2, 2), "random"):
        pass
