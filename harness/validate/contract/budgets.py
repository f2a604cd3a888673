"""Budgets: met exactly, refused truthfully, and without effect where nothing is to go."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from harness.budget.spec import TOLERANCE_TOKENS, matches
from harness.models.sites import cls_rows, running_order
from harness.validate.contract.subject import Broken, Decision, Subject
from harness.validate.tiny import Grids
from methods.base import IN_LLM, INTERFACE, VISUAL, Budget, BudgetInfeasible, Plan, Shape, Site

GRIDS: tuple[Grids, ...] = (((1, 2),), ((2, 2),), ((3, 3),), ((4, 6),), ((7, 5),), ((8, 8),), ((2, 3), (5, 4)))
DEPTHS = (16, 28, 32)  # LLM layers


def exact(subject: Subject) -> str:
    """Every plan of many (N, K) adds up to K, and a run keeps what was planned."""
    if not subject.prunes:
        return "prunes nothing, so only a budget of all tokens is its own"
    plans = sum(_plans_add_up(subject, shape) for shape in _shapes(subject))
    runs = 0
    for grids in (*subject.tiny.one_image, subject.tiny.several_images):
        for tokens in _some(sorted(subject.feasible(grids))):
            _run_meets(subject, grids, tokens)
            runs += 1
    return f"{plans} plans add up, {runs} runs keep what was planned"


def _shapes(subject: Subject) -> list[Shape]:
    """Samples that no model has to be built for, in the family's kind of tower."""
    one = subject.shape(subject.tiny.one_image[0])
    return [
        replace(one, grids=grids, vit_grids=(), tiles=(), llm_layers=layers) for grids in GRIDS for layers in DEPTHS
    ]


def _plans_add_up(subject: Subject, shape: Shape) -> int:
    done = 0
    for tokens in range(1, shape.n):
        try:
            plan = subject.pruner.plan(Budget("layer_average", tokens), shape)
        except BudgetInfeasible:
            continue
        _adds_up(subject, plan, shape, tokens)
        done += 1
    return done


def _adds_up(subject: Subject, plan: Plan, shape: Shape, tokens: int) -> None:
    asked = f"{tokens} of {shape.n} tokens, {shape.llm_layers} layers"
    if len(plan.entering) != shape.llm_layers:
        raise Broken(f"asked {asked}: the plan counts tokens of {len(plan.entering)} layers")
    if subject.resizes and plan.layer_average <= tokens:
        return
    if not matches(tokens, plan.entering):
        raise Broken(f"asked {asked}: the plan averages {plan.layer_average:g}, more than {TOLERANCE_TOKENS:g} away")
    if plan.entering != entering_of(plan, shape, cls_rows(subject.pruner, plan, shape)):
        raise Broken(f"asked {asked}: keeps and entering of the plan contradict each other: {plan}")


def entering_of(plan: Plan, shape: Shape, joining: int) -> tuple[int, ...]:
    """Tokens entering each LLM layer, told from the counts of the sites alone; `joining` more stand at the interface.

    Raises Broken where they rise.
    """
    now, entering = shape.n, []
    inside = {site.layer: keep for site, keep in plan.keeps.items() if site.hook == IN_LLM}
    for site in sorted((site for site in plan.keeps if site.hook != IN_LLM), key=running_order):
        now = _fewer(site, plan.keeps[site], now + (joining if site.hook == INTERFACE else 0))
    for layer in range(shape.llm_layers):
        now = _fewer(Site(IN_LLM, layer), inside[layer], now) if layer in inside else now
        entering.append(now)
    return tuple(entering)


def _fewer(site: Site, keep: int | None, now: int) -> int:
    if keep is None or not 0 <= keep <= now:
        raise Broken(f"the plan keeps {keep} of {now} tokens at {site.label}")
    return keep


def _some(feasible: list[int]) -> list[int]:
    """The least, the most and two between."""
    return sorted({feasible[part * (len(feasible) - 1) // 3] for part in range(4)}) if feasible else []


def _run_meets(subject: Subject, grids: Grids, tokens: int) -> None:
    run = subject.run(grids, Budget("layer_average", tokens))
    realised = run.prefill.realised.entering
    met = matches(tokens, realised) or (subject.resizes and max(realised) <= tokens)
    if realised != run.plan.entering or not met:
        raise Broken(f"asked {tokens} of {run.inputs.shape.n} tokens: planned {run.plan.entering}, ran {realised}")


def floor(subject: Subject) -> str:
    """A refusal names a floor; from there on nothing is refused, and a token below it nothing is met."""
    if not subject.prunes:
        return "prunes nothing, so there is none"
    named = set()
    for shape in _shapes(subject):
        feasible, floors = [], {}
        for tokens in range(1, shape.n):
            try:
                subject.pruner.plan(Budget("layer_average", tokens), shape)
                feasible.append(tokens)
            except BudgetInfeasible as error:
                floors[tokens] = error.floor
        for tokens, least in floors.items():
            _is_true(tokens, least, feasible, shape)
        named |= {f"{max(floors.values()) / shape.n:.1%}"} if floors and shape.n == 64 else set()
    least = min(subject.feasible(subject.tiny.one_image[0]), default=None)
    where = f"; {', '.join(sorted(named))} of 64 tokens, by depth" if named else "; none but a token or two"
    return f"the least that ran: {least} of {subject.shape(subject.tiny.one_image[0]).n} tokens{where}"


def _is_true(tokens: int, least: float, feasible: list[int], shape: Shape) -> None:
    said = f"{tokens} of {shape.n} tokens ({shape.llm_layers} layers) are refused with a floor of {least:g}"
    if tokens >= least:
        raise Broken(f"{said}, which they reach")
    if math.ceil(least) < shape.n and math.ceil(least) not in feasible:
        raise Broken(f"{said}, but {math.ceil(least)} are refused too")
    below = [other for other in feasible if other <= least - TOLERANCE_TOKENS]
    if below:
        raise Broken(f"{said}, but {below[0]} are not refused")


def all_tokens(subject: Subject) -> str:
    """K = N is the native model, and a hook that is asked for all its rows keeps them."""
    within = subject.tiny.native_tolerance
    for grids in (*subject.tiny.one_image, subject.tiny.several_images):
        n = subject.shape(grids).n
        run = subject.run(grids, Budget("layer_average", n))
        model = subject.engine(torch.float32).family.model
        processed = {name: tensor.to(subject.device) for name, tensor in subject.tiny.processed(grids).items()}
        with torch.no_grad():
            native = model(**processed, logits_to_keep=1).logits
        if run.calls or not torch.allclose(run.prefill.logits, native, rtol=0, atol=within):
            raise Broken(f"a budget of all {n} tokens changes the logits")
    asked = 0
    for call in subject.views():
        view = call.view
        whole = view.n in (view.shape.n, view.shape.n * view.shape.unit_patches)  # units, or patches
        if not whole or bool((view.kind != VISUAL).any()):
            continue
        kept = _rows_left(getattr(subject.pruner, call.hook)(replace(view, keep=view.n)), view.n)
        if kept != view.n:
            raise Broken(f"{call.label}: asked to keep all {view.n} rows, it keeps {kept}")
        asked += 1
    return f"logits equal to {f'{within:g}' if within else 'the bit'}; {asked} hooks asked for all their rows keep them"


def _rows_left(decision: Decision, n: int) -> int:
    if decision is None:
        return n
    if isinstance(decision, tuple):
        return sum(size.height * size.width for size in decision)
    return len(set(decision.keep.tolist()))


def native(subject: Subject) -> str:
    """The method's own rule runs within the sample's tokens, or it is refused with words."""
    grids = subject.tiny.one_image[0]
    try:
        run = subject.run(grids, Budget("native", 0))
    except BudgetInfeasible as error:
        return f"refused: {error}"
    entering = run.prefill.realised.entering
    if run.plan.entering and run.plan.entering != entering:
        raise Broken(f"its own rule planned {run.plan.entering} tokens and ran {entering}")
    return f"{sum(entering) / len(entering):g} of {run.inputs.shape.n} tokens on average"


def interface_kept(subject: Subject) -> str:
    """A budget of tokens that enter the LLM is met, or refused with words."""
    grids = subject.tiny.one_image[0]
    n = subject.shape(grids).n
    if not subject.prunes:
        return "prunes nothing"
    try:
        run = subject.run(grids, Budget("interface_kept", n // 2))
    except BudgetInfeasible as error:
        return f"refused: {error}"
    first = run.prefill.realised.entering[0]
    if first != n // 2 and not (subject.resizes and first < n // 2):
        raise Broken(f"asked for {n // 2} of {n} tokens at the {INTERFACE}, {first} entered the LLM")
    return f"{first} of {n} tokens enter the LLM"
