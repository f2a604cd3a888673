"""Declared and counted FLOPs of a method's own maths."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from views import shape_of, view_of

from harness.flops.counted import Spent, by_hook, counting
from methods.base import INTERFACE, ModelInfo, Pruner, Selection, Site

INFO = ModelInfo("tiny", 8, 16, 3, 5, 4, "1d")
SHAPE = shape_of((4, 6))


@dataclass(frozen=True)
class Products(Pruner):
    """24 rows of width 5 times as many columns as asked (0: a vector)."""

    name = "products"
    hooks = (INTERFACE,)
    columns: int = 0
    declared: int = 0

    def at_interface(self, view):
        other = torch.ones(view.hidden.shape[1], *([self.columns] if self.columns else []))
        score = (view.hidden @ other).reshape(view.n, -1).sum(dim=1)
        return Selection(score.argsort()[: view.n // 2].sort().values)

    def selection_flops(self, site, n, k, d, shape):
        return self.declared

    def extra_vit_flops(self, question_tokens, model):
        return 10 * question_tokens

    def extra_vit_tokens(self, question, patches, prepared):
        return question.mean(dim=0, keepdim=True) @ torch.ones(question.shape[1], 3)


def spent_by(pruner: Pruner, keep: int | None = 12, shape=SHAPE) -> Spent:
    spent: list[Spent] = []
    counting(pruner, INFO, spent).at_interface(view_of(Site(INTERFACE), torch.rand(shape.n, 5), keep, shape))
    (one,) = spent
    return one


@pytest.mark.parametrize(("columns", "flops"), [(7, 2 * 24 * 5 * 7), (1, 2 * 24 * 5), (0, 2 * 24 * 5)])
def test_products_with_matrices_and_with_vectors_count_two_a_multiply_accumulate(columns: int, flops: int):
    assert spent_by(Products(columns)) == Spent("interface", 0, flops)


def test_sorting_and_elementwise_work_count_nothing():
    @dataclass(frozen=True)
    class Norms(Products):
        def at_interface(self, view):
            return Selection((view.hidden**2).sum(dim=1).exp().argsort()[:12].sort().values)

    assert spent_by(Norms()) == Spent("interface", 0, 0) and not spent_by(Norms()).differs


@pytest.mark.parametrize(
    ("declared", "counted", "differs"),
    [(0, 1, True), (1, 0, True), (0, 0, False), (990, 1000, False), (989, 1000, True), (1000, 989, True)],
)
def test_more_than_one_percent_of_the_larger_is_a_difference(declared: int, counted: int, differs: bool):
    assert Spent("interface", declared, counted).differs is differs
    assert not Spent("interface", declared, counted, estimated=True).differs


def test_only_a_native_run_over_several_images_is_an_estimate():
    two = shape_of((2, 3), (3, 6))
    assert [spent_by(Products(), keep, shape).estimated for keep, shape in ((12, two), (None, SHAPE), (None, two))] == [
        False, False, True,
    ]  # fmt: skip


def test_extra_tokens_are_counted_for_each_call():
    spent: list[Spent] = []
    counting(Products(), INFO, spent).extra_vit_tokens(torch.rand(4, 5), torch.rand(9, 3), None)
    assert spent == [Spent("extra ViT tokens", 10 * 4, 2 * 5 * 3)] and spent[0].declared_by == "extra_vit_flops"


def test_the_pruner_itself_and_its_decisions_stay_as_they_are():
    pruner, spent = Products(7), list[Spent]()
    view = view_of(Site(INTERFACE), torch.rand(24, 5), 12, SHAPE)
    watched = counting(pruner, INFO, spent)
    assert torch.equal(watched.at_interface(view).keep, pruner.at_interface(view).keep)
    assert type(pruner) is Products and watched.settings() == pruner.settings() and len(spent) == 1


def test_calls_are_added_up_by_hook_point_without_estimates():
    calls = [Spent("in-vit:1", 3, 4), Spent("in-vit:5", 5, 6), Spent("in-llm:2", 1, 1), Spent("in-llm:2", 9, 0, True)]
    assert by_hook(calls) == [Spent("in-vit", 8, 10), Spent("in-llm", 1, 1)]
