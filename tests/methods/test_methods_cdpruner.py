from __future__ import annotations

import math

import pytest
import torch
from literal.cdpruner import cdpruner as literal
from tiny import processed, qwen3_vl
from torch.utils.flop_counter import FlopCounterMode
from views import shape_of, view_of

from harness.flops.prefill import dims_of, planned_realised
from harness.models.engine import Engine
from harness.models.families.qwen3_vl import Qwen3VL
from methods.base import INTERFACE, Budget, BudgetInfeasible, MissingSignal, PruningError, Site
from methods.cdpruner import QUESTION, CDPruner, diverse_subset


def at_angles(*degrees: float) -> torch.Tensor:
    return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees])


def view(tokens, question, k, *grids):
    shape = shape_of(*(grids or ((1, len(tokens)),)))
    return view_of(Site(INTERFACE), tokens, k, shape, {QUESTION: question})


def select(tokens, question, k, *grids):
    return CDPruner().at_interface(view(tokens, question, k, *grids)).keep.tolist()


def test_relevance_is_the_cosine_with_the_mean_question_scaled_to_one():
    # The question's tokens at 0 and 90 degrees: their mean points to 45. Cosines of the tokens: 1, 0, -1.
    tokens = at_angles(45, 135, 225) * torch.tensor([[1.0], [2], [3]])
    relevance = CDPruner()._relevance(view(tokens, at_angles(0, 90), 1))
    assert relevance.tolist() == pytest.approx([1, 0.5, 0], abs=1e-5)
    assert relevance[2] == pytest.approx(5e-7, rel=1e-2)  # a millionth of the range of 2: nothing is quite irrelevant


def test_the_first_is_the_most_relevant_and_the_next_has_most_variance_left():
    # Relevance 1, 0.9, 0.5 at 0, 10 and 90 degrees. After the first: 0.81 x (1 - cos^2 10) = 0.024 and 0.25 x 1.
    relevance = torch.tensor([1.0, 0.9, 0.5])
    assert diverse_subset(at_angles(0, 10, 90), relevance, 2).tolist() == [0, 2]
    # At 0, 40, 90 with relevance 1, 0.9, 0.5: 0.81 x 0.413 = 0.335 is more than 0.25.
    assert diverse_subset(at_angles(0, 40, 90), relevance, 2).tolist() == [0, 1]


def test_variance_left_is_that_of_the_kernel_without_the_chosen_ones():
    """Against a plain Schur complement of the kernel in float64."""
    generator = torch.Generator().manual_seed(1)
    tokens, relevance = torch.randn(12, 16, generator=generator), torch.rand(12, generator=generator)
    direction = torch.nn.functional.normalize(tokens.double())
    kernel = relevance.double()[:, None] * (direction @ direction.T) * relevance.double()
    chosen: list[int] = []
    for _ in range(9):
        rest = [i for i in range(12) if i not in chosen]
        block = kernel[chosen][:, chosen]
        left = {i: kernel[i, i] - kernel[i, chosen] @ torch.linalg.solve(block, kernel[chosen, i]) for i in rest}
        chosen.append(max(rest, key=lambda i: float(left[i])))
    assert diverse_subset(tokens, relevance, 9).tolist() == chosen


@pytest.mark.parametrize(("n", "k"), [(30, 30), (64, 20), (300, 60)])
def test_the_order_of_choice_is_that_of_the_literal_loop(n, k):
    generator = torch.Generator().manual_seed(n)
    tokens, relevance = torch.randn(n, 400, generator=generator), torch.rand(n, generator=generator)
    assert diverse_subset(tokens, relevance, k).tolist() == literal(tokens, relevance, k)


def test_of_equal_variances_the_lower_index_is_chosen_as_in_the_literal_loop():
    tokens, relevance = torch.eye(8)[torch.arange(12) % 8], torch.tensor([0.5, 1.0] * 6)
    assert diverse_subset(tokens, relevance, 8).tolist() == literal(tokens, relevance, 8) == [1, 3, 5, 7, 0, 2, 4, 6]


def test_copies_of_a_token_are_chosen_last():
    tokens = at_angles(0, 0, 0, 90)
    order = diverse_subset(tokens, torch.tensor([1.0, 0.9, 0.8, 0.1]), 4).tolist()
    assert order[:2] == [0, 3] and sorted(order) == [0, 1, 2, 3]


def test_the_question_decides_which_of_two_groups_stays():
    tokens = at_angles(0, 3, 90, 93)
    assert select(tokens, at_angles(0), 1) == [0]
    assert select(tokens, at_angles(93), 1) == [3]


def test_equal_relevance_everywhere_leaves_diversity_alone():
    tokens = torch.ones(4, 2)
    assert CDPruner()._relevance(view(tokens, torch.ones(1, 2), 2)).tolist() == [1, 1, 1, 1]
    assert select(tokens, torch.ones(1, 2), 2) == [0, 1]


def test_relevance_is_scaled_over_all_images_and_each_image_chooses_its_share():
    generator = torch.Generator().manual_seed(0)
    tokens, question = torch.randn(40, 8, generator=generator), torch.randn(3, 8, generator=generator)
    kept = select(tokens, question, 20, (4, 6), (4, 4))
    relevance = CDPruner()._relevance(view(tokens, question, 20, (4, 6), (4, 4)))
    assert relevance.max() == pytest.approx(1, abs=1e-5) and relevance.min() < 1e-5
    assert torch.equal(relevance, CDPruner()._relevance(view(tokens, question, 20)))
    first = diverse_subset(tokens[:24], relevance[:24], 12).sort().values.tolist()
    second = diverse_subset(tokens[24:], relevance[24:], 8).sort().values.tolist()
    assert kept == first + [24 + token for token in second]


@pytest.mark.parametrize("n", [1, 2, 7, 24, 65])
def test_every_budget_is_met_by_distinct_ascending_tokens_beyond_the_rank_too(n):
    generator = torch.Generator().manual_seed(n)
    tokens, question = torch.randn(n, 4, generator=generator), torch.randn(5, 4, generator=generator)
    for k in range(1, n + 1):
        kept = select(tokens, question, k)
        assert kept == sorted(set(kept)) and len(kept) == k
        assert kept == select(tokens, question, k)


def test_low_precision_tokens_are_compared_in_float32():
    generator = torch.Generator().manual_seed(2)
    tokens, question = torch.randn(40, 16, generator=generator).half(), torch.randn(5, 16, generator=generator).half()
    assert select(tokens, question, 9) == select(tokens.float(), question.float(), 9)


def test_flops_are_what_torch_counts():
    tokens, question = torch.randn(36, 8), torch.randn(5, 8)
    with FlopCounterMode(display=False) as counter:
        CDPruner().at_interface(view(tokens, question, 18, (4, 6), (3, 4)))
    told = CDPruner().selection_flops(Site(INTERFACE), 36, 18, 8, shape_of((4, 6), (3, 4)))
    assert told == counter.get_total_flops() == 2 * 36 * 8 + 2 * 8 * (24**2 + 12**2) + 24 * 12 * 11 + 12 * 6 * 5


def test_what_it_cannot_do_is_refused():
    with pytest.raises(BudgetInfeasible, match="no budget of its own"):
        CDPruner().plan(Budget("native", 0), shape_of((4, 4)))
    with pytest.raises(BudgetInfeasible):
        CDPruner().plan(Budget("layer_average", 0), shape_of((4, 4)))
    with pytest.raises(PruningError, match="relevance"):
        CDPruner("attention")


@pytest.fixture(scope="module")
def family():
    return Qwen3VL(qwen3_vl())


def test_relevance_by_clip_needs_a_folder_and_the_error_says_so(family):
    with pytest.raises(MissingSignal, match="clip_folder"):
        Engine(family, CDPruner("clip"))


@pytest.mark.parametrize("grids", [((4, 6),), ((6, 6), (3, 4)), ((6, 6), (1, 1))])
@pytest.mark.parametrize("percent", [50, 25])
def test_a_model_runs_what_was_planned(family, grids, percent):
    pruner = CDPruner()
    engine, inputs = Engine(family, pruner), family.inputs(processed(grids))
    k = inputs.shape.n * percent // 100
    plan = engine.plan(Budget("layer_average", k), inputs.shape)
    realised = engine.prefill(inputs, plan).realised
    assert realised.entering == plan.entering == (k,) * 6
    told = planned_realised(dims_of(family.model.config), inputs.shape, plan, inputs.text, pruner)
    assert told.selection_flops == realised.selection_flops > 0
