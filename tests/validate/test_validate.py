"""The contract: every method keeps it, and methods broken on purpose are caught by the check that names the fault."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest
import torch

import methods
from harness.models.families.qwen3_vl import Qwen3VL
from harness.models.families.registry import FAMILIES, family_class
from harness.validate.contract import CHECKS, check_method
from harness.validate.tiny import TINY
from methods.base import IN_LLM, INTERFACE, Budget, BudgetInfeasible, Plan, Pruner, Selection, Site

COUNTER = itertools.count()


@dataclass(frozen=True)
class Sound(Pruner):
    """Keeps the rows of largest norm: nothing to find fault with. The broken ones below differ in one thing each."""

    name = "sound"
    hooks = (INTERFACE,)

    def at_interface(self, view):
        return Selection(view.hidden.float().norm(dim=1).argsort(descending=True)[: view.keep].sort().values)


class WrongCount(Sound):
    def at_interface(self, view):
        return Selection(super().at_interface(view).keep[1:])


class Lies(Sound):
    """The plan says one thing of the sites, another of the layers."""

    def plan(self, budget, shape):
        return replace(super().plan(budget, shape), keeps={Site(INTERFACE): 1})


class FallsShort(Sound):
    """Realises two tokens fewer than asked, as planned."""

    def plan(self, budget, shape):
        return super().plan(replace(budget, tokens=max(1, budget.tokens - 2)), shape)


class FalseFloor(Sound):
    def plan(self, budget, shape):
        if budget.tokens < shape.n // 2:
            raise BudgetInfeasible("cannot", shape.n / 4)
        return super().plan(budget, shape)


class HighFloor(Sound):
    """It refuses 3 tokens only, and calls 5 its floor."""

    def plan(self, budget, shape):
        if budget.tokens == 3:
            raise BudgetInfeasible("cannot", 5)
        return super().plan(budget, shape)


class AlwaysDrops(Sound):
    def at_interface(self, view):
        return Selection(super().at_interface(replace(view, keep=min(view.keep, view.n - 1))).keep)


class OtherBudget(Sound):
    def plan(self, budget, shape):
        tokens = budget.tokens - (budget.kind == "interface_kept")
        return super().plan(replace(budget, tokens=tokens), shape)


class OwnRule(Sound):
    def plan(self, budget, shape):
        if budget.kind == "native":
            return Plan({Site(INTERFACE): 5}, (6,) * shape.llm_layers)
        return super().plan(budget, shape)


class OtherHook(Sound):
    hooks = (IN_LLM,)

    def site(self, shape):
        return Site(INTERFACE)


class Twice(Sound):
    def at_interface(self, view):
        return Selection(torch.zeros(view.n if view.keep is None else view.keep, dtype=torch.int64))


class NoOwnRule(Sound):
    """It forgets that native runs ask for no number."""

    def at_interface(self, view):
        return Selection(torch.arange(int(view.keep)))


class OutOfRange(Sound):
    def at_interface(self, view):
        return Selection(super().at_interface(view).keep - view.n)


class Floats(Sound):
    def at_interface(self, view):
        return Selection(super().at_interface(view).keep.float())


class NotFinite(Sound):
    def at_interface(self, view):
        keep = super().at_interface(view).keep
        return Selection(keep, torch.zeros(view.n).long().index_copy(0, keep, torch.arange(len(keep))),
                         torch.full((view.n,), torch.nan))  # fmt: skip


class ForeignSlot(Sound):
    def at_interface(self, view):
        keep = super().at_interface(view).keep
        return Selection(keep, torch.full((view.n,), -1), torch.ones(view.n))


class Remembers(Sound):
    def at_interface(self, view):
        return Selection((super().at_interface(view).keep + next(COUNTER)) % view.n)


class GlobalDraw(Sound):
    def at_interface(self, view):
        return Selection(torch.randperm(view.n)[: view.keep].sort().values)


class UndeclaredSeed(Sound):
    def at_interface(self, view):
        return Selection(torch.randperm(view.n, generator=view.generator())[: view.keep].sort().values)


class Backward(Sound):
    def at_interface(self, view):
        with torch.enable_grad():
            hidden = view.hidden.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(hidden.square().sum(), hidden)
        return Selection(slope.norm(dim=1).argsort()[: view.keep].sort().values)


class Item(Sound):
    def at_interface(self, view):
        threshold = view.hidden.mean().item()
        return super().at_interface(replace(view, hidden=view.hidden - threshold))


class ToList(Sound):
    def at_interface(self, view):
        norms = view.hidden.float().norm(dim=1).tolist()
        return Selection(torch.tensor(sorted(sorted(range(view.n), key=norms.__getitem__)[: view.keep])))


class Masked(Sound):
    def at_interface(self, view):
        view.hidden[view.hidden[:, 0] > 0].sum()
        return super().at_interface(view)


class WrittenThenRead(Sound):
    """Values of the device are written into a tensor of the host, and read there."""

    def at_interface(self, view):
        total = torch.zeros(1).copy_(view.hidden.float().sum().reshape(1))
        return super().at_interface(replace(view, hidden=view.hidden + float(total)))


class Writes(Sound):
    def at_interface(self, view):
        selection = super().at_interface(view)
        view.hidden[0] = 0
        return selection


class OnlyFloat32(Sound):
    def at_interface(self, view):
        return Selection((view.hidden @ torch.ones(view.hidden.shape[1])).argsort()[: view.keep].sort().values)


class LeavesAHook(Sound):
    def at_interface(self, view):
        torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
        return super().at_interface(view)


class WritesWeights(Sound):
    def prepare(self, model):
        next(iter(model.projector.values())).mul_(1.5)


class FlopsByMood(Sound):
    def selection_flops(self, site, n, k, d, shape):
        return next(COUNTER)


class FreeOfCharge(Sound):
    """It multiplies all rows with all others and declares nothing."""

    def at_interface(self, view):
        likeness = (view.hidden.float() @ view.hidden.float().T).sum(dim=1)
        return Selection(likeness.argsort(descending=True)[: view.keep].sort().values)


class Boasts(Sound):
    def selection_flops(self, site, n, k, d, shape):
        return 2 * n * d


class Raises(Sound):
    def at_interface(self, view):
        raise KeyError("attn")


BROKEN = [
    (WrongCount, "exact budget"),
    (Lies, "exact budget"),
    (FallsShort, "exact budget"),
    (FalseFloor, "floor"),
    (HighFloor, "floor"),
    (AlwaysDrops, "all tokens"),
    (OtherBudget, "interface budget"),
    (OwnRule, "own rule"),
    (NoOwnRule, "own rule"),
    (OtherHook, "selection"),
    (Twice, "selection"),
    (OutOfRange, "selection"),
    (Floats, "selection"),
    (NotFinite, "selection"),
    (ForeignSlot, "selection"),
    (Remembers, "determinism"),
    (GlobalDraw, "determinism"),
    (UndeclaredSeed, "determinism"),
    (Backward, "no gradient"),
    (Item, "no wait"),
    (ToList, "no wait"),
    (Masked, "no wait"),
    (WrittenThenRead, "no wait"),
    (Writes, "views"),
    (OnlyFloat32, "precision"),
    (LeavesAHook, "no trace"),
    (WritesWeights, "no trace"),
    (FlopsByMood, "FLOPs"),
    (FreeOfCharge, "costs"),
    (Boasts, "costs"),
    (Raises, "exact budget"),
]
FEW = ("selection", "no wait", "views")


def failed(pruner: Pruner, *names: str, family: str = "qwen3_vl") -> dict[str, str]:
    return {
        result.check: result.detail for result in check_method(pruner, family, names=names) if result.status == "fail"
    }


@pytest.fixture(autouse=True)
def global_hooks():
    """What a broken method leaves on torch does not outlive its test."""
    hooks = torch.nn.modules.module._global_forward_hooks
    before = dict(hooks)
    yield
    hooks.clear()
    hooks.update(before)


def test_a_sound_method_keeps_the_whole_contract():
    results = list(check_method(Sound(), "qwen3_vl"))
    assert [result.check for result in results] == [check.name for check in CHECKS]
    assert {result.check: result.detail for result in results if result.status != "pass"} == {}
    assert all(result.detail and result.sentence for result in results)


@pytest.mark.parametrize(("broken", "check"), BROKEN, ids=[f"{kind.__name__}" for kind, _ in BROKEN])
def test_a_broken_method_is_caught_by_the_check_that_names_its_fault(broken: type[Pruner], check: str):
    assert set(failed(broken(), check)) == {check}


def test_most_faults_are_caught_by_their_check_alone():
    """A fault that breaks no other promise must not be reported as breaking it."""
    for broken, check in (
        (Twice, "selection"),
        (Item, "no wait"),
        (Writes, "views"),
        (HighFloor, "floor"),
        (NoOwnRule, "own rule"),
    ):
        assert set(failed(broken(), *FEW, "floor", "own rule")) == {check}


def test_the_costs_of_a_method_are_said_by_hook_point():
    assert (
        "interface: declared 0 FLOPs, counted 82,944; declare it in selection_flops"
        in (failed(FreeOfCharge(), "costs")["costs"])
    )
    (said,) = check_method(methods.build("divprune"), "qwen3_vl", names=("costs",))
    (none,) = check_method(Sound(), "qwen3_vl", names=("costs",))
    assert "interface: declared " in said.detail and "no products in" in none.detail


def test_a_declared_wait_is_no_fault():
    class Declared(Item):
        synchronises = "the mean decides on the host"

    assert failed(Declared(), "no wait") == {}


def test_a_batch_is_refused_with_words_or_it_is_a_fault(monkeypatch: pytest.MonkeyPatch):
    assert failed(Sound(), "batch") == {}
    native = Qwen3VL.inputs

    def unhelpful(self, processed):
        if processed["input_ids"].shape[0] > 1:
            raise ValueError("no")
        return native(self, processed)

    monkeypatch.setattr(Qwen3VL, "inputs", unhelpful)
    assert "without saying so" in failed(Sound(), "batch")["batch"]


def test_every_family_has_a_tiny_model_of_sixteen_layers():
    assert TINY.keys() == set(FAMILIES)
    for name in TINY:
        family = family_class(name)(TINY[name].build(torch.float32, vit_layers=8, llm_layers=16))
        assert (family.vit_layers, len(family.decoder.layers)) == (8, 16)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_keeps_the_short_form(name: str):
    assert failed(methods.build(name), *FEW) == {}


@pytest.mark.proof
@pytest.mark.parametrize("family", sorted(TINY))
@pytest.mark.parametrize("name", [f"{name}:{preset}" if preset else name for name in methods.names()
                                  for preset in ("", *methods.get(name).presets)])  # fmt: skip
def test_every_method_and_preset_keeps_the_contract(name: str, family: str):
    assert failed(methods.build(name), family=family) == {}


def test_a_family_that_planning_refuses_is_unsupported_with_its_reason():
    results = list(check_method(methods.build("downsample"), "llava_next", names=("exact budget", "floor")))
    assert [result.status for result in results] == ["unsupported"] * 2
    assert "tiles of one size" in results[0].detail


HAND = {  # 64 tokens, 16 layers: tokens of the layers in front of the first cut, on average
    "fastv": 64 * 1 / 16,  # K = 2 of 32
    "pact": 64 * 2 / 16,  # 4 of 28
    "pyramiddrop": 64 * 4 / 16,  # 8 of 32
    "quietprune": 2,  # a unit and the aggregate
    "vprune": 1,
    "divprune": 1,
}


@pytest.mark.parametrize(("name", "floor"), HAND.items())
def test_floors_are_those_of_hand_arithmetic(name: str, floor: float):
    from methods.base import Shape

    shape = Shape(((8, 8),), 8, 16)
    with pytest.raises(BudgetInfeasible) as caught:
        methods.build(name).plan(Budget("layer_average", 0), shape)
    assert caught.value.floor == pytest.approx(floor)


@pytest.mark.gpu
@pytest.mark.parametrize("name", methods.names())
def test_no_undeclared_wait_on_a_gpu(name: str):
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    results = check_method(methods.build(name), "qwen3_vl", "cuda", ("no wait", "no gradient", "views", "selection"))
    assert {result.check: result.detail for result in results if result.status == "fail"} == {}
