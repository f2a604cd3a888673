"""Single decisions: well formed, repeatable, without gradients, and without touching what they were shown."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.validate.contract.subject import Broken, Call, Subject, equal, parts_of
from methods.base import Budget, Selection


def selections(subject: Subject) -> str:
    """Declared hooks; int64 indices in range, none twice; slots that exist; finite weights; usable positions."""
    calls = list(subject.views())
    for call in calls:
        if call.view.site.hook not in subject.pruner.hooks:
            raise Broken(f"it acts at {call.label}, which its hooks do not name: {subject.pruner.hooks}")
        if isinstance(call.selection, Selection):
            _well_formed(call, call.selection)
    merges = sum("assign" in parts_of(call.selection) for call in calls)
    return f"{len(calls)} decisions are well formed, {merges} of them merge"


def _well_formed(call: Call, selection: Selection) -> None:
    keep, n, where = selection.keep, call.view.n, call.label
    if keep.numel() and (int(keep.min()) < 0 or int(keep.max()) >= n):
        raise Broken(f"{where}: keep names rows {int(keep.min())}..{int(keep.max())}, there are {n}")
    if len(set(keep.tolist())) != keep.numel():
        raise Broken(f"{where}: keep names a row twice")
    assign = selection.assign
    if assign is not None:
        if assign.dtype != torch.int64 or int(assign.min()) < -1 or int(assign.max()) >= keep.numel():
            raise Broken(f"{where}: assign must be int64 in -1..{keep.numel() - 1}")
        if not torch.equal(assign[keep], torch.arange(keep.numel(), device=keep.device)):
            raise Broken(f"{where}: a kept row is not assigned to its own slot")
    for name in ("weight", "aggregate"):
        tensor = getattr(selection, name)
        if tensor is not None and not (tensor.is_floating_point() and bool(tensor.isfinite().all())):
            raise Broken(f"{where}: {name} must be finite floats, got {tensor.dtype}")
    positions = selection.positions
    if isinstance(positions, str) and positions not in ("original", "renumber"):
        raise Broken(f'{where}: positions must be "original", "renumber" or ids, got {positions!r}')
    if isinstance(positions, torch.Tensor) and positions.shape[-1] != keep.numel():
        raise Broken(f"{where}: {positions.shape[-1]} positions for {keep.numel()} rows")


def repeatable(subject: Subject) -> str:
    """The same prompt and seed give the same decisions; another seed changes those of a stochastic method alone."""
    if not subject.prunes:
        return "decides nothing"
    one, other = subject.ragged
    budget = Budget("layer_average", subject.middle(one))
    torch.manual_seed(1)
    first = subject.fresh(one, budget).calls
    torch.manual_seed(2)
    before = torch.get_rng_state()
    subject.fresh(other, Budget("layer_average", subject.middle(other)))
    again = subject.fresh(one, budget).calls
    if not _alike(first, again):
        raise Broken("the same prompt and seed gave another decision; draw with view.generator(), and keep no state")
    if not torch.equal(before, torch.get_rng_state()):
        raise Broken("it draws from torch's global generator; draw with view.generator()")
    differs = [seed for seed in range(1, 6) if not _alike(first, subject.fresh(one, budget, seed).calls)]
    if differs and not subject.pruner.stochastic:
        raise Broken(f"seed {differs[0]} gives another decision, but the class does not say stochastic = True")
    return f"{len(differs)} of 5 other seeds decide otherwise" if differs else "equal to the bit, under other seeds too"


def _alike(one: tuple[Call, ...], other: tuple[Call, ...]) -> bool:
    if len(one) != len(other):
        return False
    for mine, yours in zip(one, other, strict=True):
        a, b = parts_of(mine.selection), parts_of(yours.selection)
        if isinstance(mine.selection, tuple) and mine.selection != yours.selection:
            return False
        if a.keys() != b.keys() or not all(equal(a[name], b[name]) for name in a):
            return False
    return True


class _Gradients(TorchDispatchMode):
    """Notes the first operation that runs with gradients enabled."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = ""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_grad_enabled() and not self.seen:
            self.seen = str(operation)
        return operation(*args, **(kwargs or {}))


def without_gradient(subject: Subject) -> str:
    """Decisions run under inference mode, switch no gradient on, and carry none."""
    calls = list(subject.views())
    for call in calls:
        watch = _Gradients()
        with torch.no_grad(), watch:
            getattr(subject.pruner, call.hook)(call.view)
        if watch.seen:
            raise Broken(f"{call.label}: {watch.seen} ran with gradients enabled")
        with torch.inference_mode():
            selection = getattr(subject.pruner, call.hook)(call.view)
        carrying = [name for name, tensor in parts_of(selection).items() if tensor.requires_grad]
        if carrying:
            raise Broken(f"{call.label}: {carrying[0]} carries a gradient")
    return f"{len(calls)} decisions repeated in inference mode"


def views_untouched(subject: Subject) -> str:
    """Everything that a hook was shown is afterwards what it was before."""
    calls = list(subject.views())
    for call in calls:
        if call.changed:
            raise Broken(f"{call.label}: it changed {call.changed[0]} of its view; clone before writing")
    return f"{len(calls)} views are as they were"
