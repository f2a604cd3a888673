"""The model under a method: any precision, FLOPs as planned, one prompt at a time, and no trace left behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.flops.counted import UNCOUNTED, Spent, by_hook, counting
from harness.flops.prefill import dims_of, planned_realised, prefill_flops
from harness.models.engine import Engine
from harness.validate.contract.subject import Broken, Subject, adapter_of
from methods.base import IN_VIT, PRE_TOKENIZATION, Budget, BudgetInfeasible

GLOBAL_HOOKS = tuple(sorted(name for name in vars(torch_module) if name.startswith("_global_") and "hooks" in name))


def precisions(subject: Subject) -> str:
    """float32 and bfloat16 both run, keep the same number of tokens, and give finite logits."""
    grids = subject.tiny.one_image[0]
    tokens = subject.middle(grids) if subject.prunes else subject.shape(grids).n
    entering = set()
    for dtype in (torch.float32, torch.bfloat16):
        run = subject.run(grids, Budget("layer_average", tokens), dtype=dtype)
        entering.add(run.prefill.realised.entering)
        if not bool(run.prefill.logits.isfinite().all()):
            raise Broken(f"logits are not finite in {dtype}")
    if len(entering) > 1:
        raise Broken(f"float32 and bfloat16 keep different numbers of tokens: {sorted(entering)}")
    return f"{tokens} tokens in float32 and bfloat16"


def no_trace(subject: Subject) -> str:
    """After a run the model, the attention registry and torch's global state are what they were before."""
    grids = subject.tiny.one_image[0]
    budget = Budget("layer_average", subject.middle(grids) if subject.prunes else subject.shape(grids).n)
    model = subject.engine(torch.float32).family.model
    before = _state(model)
    subject.fresh(grids, budget)
    after = _state(model)
    left = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if left:
        raise Broken(f"a run leaves its trace on {left[0]}")
    weights = subject.untouched().state_dict()
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, weights[name])]
    if changed:
        raise Broken(f"it changes the weights {changed[0]}")
    return f"{len(before)} places and {len(weights)} weights are as before"


def _state(model: nn.Module) -> dict[str, Any]:
    """Everything that a run could leave behind, by a name for people."""
    state: dict[str, Any] = {
        "the attention registry": dict(ALL_ATTENTION_FUNCTIONS._local_mapping),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's gradient mode": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "torch's thread count": torch.get_num_threads(),
    }
    for name in GLOBAL_HOOKS:
        state[f"torch's hooks on all modules ({name})"] = list(getattr(torch_module, name) or ())
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            place = f"{name or 'the model'}.{key}"
            if "hooks" in key and isinstance(value, Mapping):
                state[place] = list(value)
            elif key not in ("_parameters", "_buffers", "_modules") and not isinstance(value, Tensor):
                state[place] = id(value)
    return state


def flops(subject: Subject) -> str:
    """FLOPs told from the plan equal those of what ran, stage by stage."""
    if not subject.prunes:
        return "prunes nothing, so nothing is to be planned"
    engine = subject.engine(torch.float32)
    dims, info = dims_of(engine.family.model.config), engine.family.info
    compared = 0
    for grids in subject.tiny.one_image[:2]:
        for tokens in (min(subject.feasible(grids), default=0), subject.middle(grids)):
            run = subject.run(grids, Budget("layer_average", tokens))
            extra = subject.pruner.extra_vit_token_count() if run.plan.layers_of("in-vit") else 0
            what = (dims, run.inputs.shape, run.plan, run.inputs.text, subject.pruner, info)
            planned, realised = planned_realised(*what), run.prefill.realised
            if run.inputs.shape.tiles and _sums(realised.vit_tokens) == _sums(planned.vit_tokens):
                planned = planned_realised(*what, ran=realised)  # from which tile units went is in the picture
            if any(site.hook in (PRE_TOKENIZATION, IN_VIT) for site in run.plan.keeps):
                realised = replace(realised, vit_attended=planned.vit_attended)  # which units went is in the picture
            told = prefill_flops(dims, planned, extra)
            ran = prefill_flops(dims, realised, extra)
            if told != ran:
                apart = [f"{f.name} {getattr(told, f.name)}, ran {getattr(ran, f.name)}"
                         for f in fields(told) if getattr(told, f.name) != getattr(ran, f.name)]  # fmt: skip
                raise Broken(f"{tokens} of {run.inputs.shape.n} tokens: planned {'; planned '.join(apart)}")
            compared += 1
    return f"equal in {compared} runs"


def costs(subject: Subject) -> str:
    """Compare the FLOPs that the method declares with the counted ones, call by call."""
    family, spent = subject.engine(torch.float32).family, list[Spent]()
    pruner = counting(subject.pruner, family.info, spent)
    engine = Engine(family, pruner, adapter_of(subject.pruner, family))
    for grids in (*subject.tiny.one_image[:2], subject.tiny.several_images):
        asked = {min(subject.feasible(grids), default=0), subject.middle(grids)} if subject.prunes else ()
        for budget in (*(Budget("layer_average", tokens) for tokens in asked), Budget("native", 0)):
            inputs = subject.inputs(grids)
            try:
                plan = engine.plan(budget, inputs.shape)
            except BudgetInfeasible:  # no rule of its own
                continue
            engine.prefill(inputs, plan)
    for one in spent:
        if one.differs:
            raise Broken(f"{one}; declare it in {one.declared_by} (counted: products; {UNCOUNTED})")
    if not any(one.counted for one in spent):
        return f"no products in {len(spent)} calls, none declared; {UNCOUNTED}"
    return "; ".join(map(str, by_hook(spent)))


def _sums(tokens: tuple[tuple[int, ...], ...]) -> list[int]:
    return [sum(block) for block in tokens]


def batches(subject: Subject) -> str:
    """Prompts of different lengths in one batch give what they give alone, or are refused with words."""
    engine, both = subject.engine(torch.float32), subject.ragged
    try:
        together = engine.family.inputs(padded([subject.tiny.processed(grids) for grids in both]))
    except ValueError as error:
        if "batch" not in str(error):
            raise Broken(f"a batch is refused without saying so: {error}") from error
        return f"refused: {error}"
    budget = Budget("layer_average", subject.middle(both[1]) if subject.prunes else subject.shape(both[1]).n)
    logits = engine.prefill(together, engine.plan(budget, together.shape)).logits
    for number, grids in enumerate(both):
        if not torch.allclose(logits[number, -1], subject.run(grids, budget).prefill.logits[0, -1], atol=1e-4):
            raise Broken(f"prompt {number} gives other logits in a batch than alone")
    return "equal to single prompts"


def padded(prompts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Prompts of one batch, shorter ones padded on the left, pixels one after another."""
    length = max(prompt["input_ids"].shape[1] for prompt in prompts)
    batch: dict[str, Tensor] = {}
    for name in prompts[0]:
        rows = [prompt[name] for prompt in prompts]
        if rows[0].ndim == 2 and name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            rows = [nn.functional.pad(row, (length - row.shape[1], 0)) for row in rows]
        batch[name] = torch.cat(rows)
    return batch
