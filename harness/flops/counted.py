"""FLOPs of a method's own maths, counted while its hooks run, to be held against what it declares.

Counted is what `Pruner.selection_flops` asks for: products of matrices and convolutions, by torch's FlopCounterMode.
Elementwise work, sorting, and operators that multiply inside themselves (cdist, linalg) count 0 on both sides: a method
of such work alone truthfully declares 0, and this comparison says nothing of its time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from harness.models.sites import HOOK_POINTS
from methods.base import PRE_TOKENIZATION, ModelInfo, Pruner, Selection, View

TOLERANCE_RATIO = 0.01
UNCOUNTED = "elementwise work and sorting count 0"
HOOK_METHODS = tuple(point.method for point in HOOK_POINTS.values())
EXTRA_TOKENS = "extra ViT tokens"


@dataclass(frozen=True)
class Spent:
    """FLOPs of one call of the method. where: the site's label, or EXTRA_TOKENS.

    estimated: the declaration cannot be exact, since the picture decides how many rows each image has: a native run
    (no count is asked) over several images.
    """

    where: str
    declared: int
    counted: int
    estimated: bool = False

    @property
    def differs(self) -> bool:
        """True if declared and counted lie more than 1 % of the larger apart, and need not."""
        apart = abs(self.declared - self.counted)
        return not self.estimated and apart > TOLERANCE_RATIO * max(self.declared, self.counted)

    @property
    def declared_by(self) -> str:
        """The method of a pruner that declares such a call."""
        return "extra_vit_flops" if self.where == EXTRA_TOKENS else "selection_flops"

    def __str__(self) -> str:
        return f"{self.where}: declared {self.declared:,} FLOPs, counted {self.counted:,}"


def counting(pruner: Pruner, model: ModelInfo, spent: list[Spent]) -> Pruner:
    """The same pruner, each of whose calls appends what it declared and what was counted to `spent`."""
    kind = type(pruner)

    def hook_method(name: str) -> Callable[[Pruner, View], Any]:
        def method(self: Pruner, view: View) -> Any:
            decision, counted = _counted(lambda: getattr(kind, name)(self, view))
            estimated = view.keep is None and view.images > 1
            spent.append(Spent(view.site.label, _declared(pruner, view, decision), counted, estimated))
            return decision

        return method

    def extra_vit_tokens(self: Pruner, question: Tensor, patches: Tensor, prepared: Any) -> Tensor | None:
        tokens, counted = _counted(lambda: kind.extra_vit_tokens(self, question, patches, prepared))
        if tokens is not None or counted:
            spent.append(Spent(EXTRA_TOKENS, pruner.extra_vit_flops(question.shape[0], model), counted))
        return tokens

    hooks = {name: hook_method(name) for name in HOOK_METHODS}
    return overridden(pruner, {**hooks, "extra_vit_tokens": extra_vit_tokens})


def overridden(pruner: Pruner, methods: Mapping[str, Callable[..., Any]]) -> Pruner:
    """The same pruner as an instance of a subclass that has other methods."""
    kind, same = type(pruner), copy.copy(pruner)
    object.__setattr__(same, "__class__", type(kind.__name__, (kind,), dict(methods)))
    return same


def by_hook(spent: Iterable[Spent]) -> list[Spent]:
    """The calls of each hook point added up, those that can be exact alone."""
    sums: dict[str, list[int]] = {}
    for one in spent:
        if not one.estimated:
            total = sums.setdefault(one.where.partition(":")[0], [0, 0])
            total[0] += one.declared
            total[1] += one.counted
    return [Spent(hook, *total) for hook, total in sums.items()]


def _declared(pruner: Pruner, view: View, decision: Any) -> int:
    """FLOPs that the method declares for a decision, as `Pass._note` records them."""
    if decision is None:
        return 0
    if isinstance(decision, Selection):
        kept = decision.keep.shape[0]
    else:
        kept = sum(size.height * size.width for size in decision)
    width = view.hidden[0].numel() if view.site.hook == PRE_TOKENIZATION else view.hidden.shape[-1]
    return pruner.selection_flops(view.site, view.n, kept, width, view.shape)


def _counted(call: Callable[[], Any]) -> tuple[Any, int]:
    """The result of a call, and the FLOPs of its products."""
    with FlopCounterMode(display=False, custom_mapping=_PRODUCTS_OF_VECTORS) as counter:
        result = call()
    return result, counter.get_total_flops()


# torch leaves products with vectors out; a matrix times a vector is a product all the same.
_PRODUCTS_OF_VECTORS = {
    torch.ops.aten.mv: lambda matrix, _, **rest: 2 * matrix[0] * matrix[1],
    torch.ops.aten.addmv: lambda _, matrix, __, **rest: 2 * matrix[0] * matrix[1],
    torch.ops.aten.dot: lambda vector, _, **rest: 2 * vector[0],
}
