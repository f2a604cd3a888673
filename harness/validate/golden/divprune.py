"""DivPrune's files: tokens in, indices out."""

from __future__ import annotations

from torch import Tensor

from harness.validate.golden.case import GoldenCase, agree, view_of
from methods.base import INTERFACE, Budget, Selection, Shape, Site
from methods.divprune import DivPrune, nearest_neighbour
from methods.ops import unit


def kept(case: GoldenCase) -> None:
    """The tokens kept, in the order of choice and in raster order; the scores of the first choice; the native count.

    Where distinct vectors run out the authors repeat indices, in an order that rounding decides: there, the set.
    """
    tokens, k = case.tensor("tokens"), case.integer("keep_count")
    agree("keep_count is a number of tokens", 0 <= k <= len(tokens))
    order = _selected(tokens, k, "selection").keep
    distinct = case.integer("n_unique_kept")
    theirs = set(case["kept_sorted"].tolist())
    agree("n_unique_kept counts the distinct indices of kept_sorted", len(theirs) == distinct)
    agree("selection_order and kept_sorted hold the same indices", set(case["selection_order"].tolist()) == theirs)
    if distinct < k:
        agree("our first choices are the authors' distinct indices", set(order[:distinct].tolist()) == theirs)
        agree("we choose no index twice", len(set(order.tolist())) == k)
    else:
        case.equals("selection_order", order)
        case.equals("kept_sorted", _selected(tokens, k, "spatial").keep)
    if "first_pick_scores" in case:
        direction = unit(tokens)
        case.close("first_pick_scores", nearest_neighbour(1 - direction @ direction.T), 1e-6)
    if k:
        plan = DivPrune(ratio=case.number("keep_ratio")).plan(Budget("native", 0), _shape(tokens))
        agree(f"a native run keeps keep_count = {k} tokens", plan.keeps[Site(INTERFACE)] == k)


def _selected(tokens: Tensor, k: int, order: str) -> Selection:
    view = view_of(Site(INTERFACE), tokens, k, _shape(tokens))
    selection = DivPrune(order=order).at_interface(view)
    selection.validate(view.n, k)
    return selection


def _shape(tokens: Tensor) -> Shape:
    return Shape(((1, len(tokens)),), 24, 32, unit_patches=1)
