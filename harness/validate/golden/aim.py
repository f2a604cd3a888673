"""AIM's files: merged tokens, importance, the schedule, and whole tiny Qwen2 models."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Qwen2Model

from harness.validate.golden import aim as aim_masked
from harness.validate.golden.case import GoldenCase, agree, close, same, view_of
from harness.validate.golden.llm import GoldenPrefill, native_model
from methods import aim
from methods.aim import Aim
from methods.base import IN_LLM, INTERFACE, Budget, Shape, Signal, Site
from methods.selection import reduce

TOLERANCE = 1e-4


def merge(case: GoldenCase) -> None:
    """The merged tokens, and the metric merged with them, after every stage of every crop."""
    for crop in range(len(case["tokens"])):
        tokens = case.tensor("tokens")[crop]
        metric = case.tensor("metric")[crop] if "metric" in case else None
        k = len(tokens)
        for stage, r in enumerate(case["stage_r"].reshape(-1).tolist(), 1):
            k -= min(r, k // 2)
            _stage(case, crop, stage, (tokens, metric), k)


def _stage(case: GoldenCase, crop: int, stage: int, rows: tuple[Tensor, Tensor | None], k: int) -> None:
    tokens, metric = rows
    n = len(tokens)
    shape, signals = Shape(((1, n),), 24, 32, unit_patches=1), {}
    if metric is not None:
        signals[Signal("keys", "vit", 23, rope=False)] = metric.view(n, 1, 2, -1)  # as two heads
    pruner = Aim(metric="tokens" if metric is None else "keys")
    selection = pruner.at_interface(view_of(Site(INTERFACE), tokens, k, shape, signals))
    selection.validate(n, k)
    if f"stage{stage}_tokens" not in case:  # r = 0: theirs returns nothing, which stands for the input
        agree("stage1_returns_none where nothing is merged", k == n and bool(case["stage1_returns_none"]))
        same("tokens of which none is merged", reduce(selection, tokens), tokens.numpy())
        return
    compared = {"tokens": tokens} if metric is None else {"tokens": tokens, "metric": metric}
    for kind, source in compared.items():
        name = f"stage{stage}_{kind}"
        close(name, reduce(selection, source), case[name][crop], 1e-5)
    if metric is None and f"stage{stage}_metric" in case:  # the tokens are their own metric
        close(f"stage{stage}_metric", reduce(selection, tokens), case[f"stage{stage}_metric"][crop], 1e-5)


def importance(case: GoldenCase) -> None:
    """The importance of every token, and that it decides what stays, wherever its gaps are wider than rounding."""
    logits, tau, iterations = (
        case.tensor("attention_logits_masked")[0],
        case.number("tau"),
        case.integer("iters", most=1000),
    )
    case.close("importance", aim.importance(logits, tau, iterations)[None], 1e-6)
    theirs = case["importance"][0]
    n, pruner = len(theirs), Aim(tau=tau, iterations=iterations)
    ranked = np.argsort(-theirs, kind="stable")
    for keep in range(1, n):
        if theirs[ranked[keep - 1]] - theirs[ranked[keep]] > 1e-6:
            same(f"the {keep} most important tokens", _in_llm(pruner, logits, n, keep, 15), np.sort(ranked[:keep]))


def _in_llm(pruner: Aim, logits: Tensor, n: int, keep: int, layer: int) -> list[int]:
    """What the hook keeps of the n first tokens of a layer with these logits (h, T, T)."""
    signal = Signal("logits", layer=layer - 1, queries="all", per_head=True, at=layer)
    view = view_of(Site(IN_LLM, layer), torch.zeros(n, 8), keep, Shape(((1, n),), 8, 28), {signal: logits})
    return pruner.in_llm(view).keep.tolist()


def schedule(case: GoldenCase) -> None:
    """Which tokens each layer drops. Logits are made so that PageRank is the stored importance, one row for all."""
    start, end, length = (case.integer(name) for name in ("visual_start", "visual_end_exclusive", "seq_len"))
    n, masks = end - start, case["mask_after_layer"]
    plan = Aim(merge=1.0).plan(Budget("native", 0), Shape(((1, n),), 8, len(masks)))
    entering = [*plan.entering[1:], int(masks[-1, start:end].sum())]  # nothing runs behind the last layer
    case.equals("visual_kept_after_layer", entering)
    case.close("retain_rate", torch.tensor(entering) / n, 1e-6)
    alive, text = list(range(n)), [place for place in range(length) if not start <= place < end]
    for layer, mask in enumerate(masks):
        site = Site(IN_LLM, layer + 1)
        if site in plan.keeps:
            score = case.tensor("importance_per_layer")[layer][[start + token for token in alive] + text]
            logits = (0.1 * score.log()).expand(1, len(score), -1)
            alive = [alive[row] for row in _in_llm(Aim(), logits, len(alive), plan.keeps[site], layer + 1)]
        same(f"mask_after_layer {layer}", np.isin(np.arange(length), [start + token for token in alive] + text), mask)


def whole_model(case: GoldenCase) -> None:
    """Our removal drops what the file's removal drops, and the native model under the authors' masks gives theirs.

    The authors hide tokens that we remove, so that the last selections of the ramp differ a little, by design.
    """
    start, end = case.integer("visual_start"), case.integer("visual_end_exclusive")
    model, embeds = tiny_qwen2(case), case.tensor("inputs_embeds")
    hidden, removed = case["mask_after_layer"], case["physical_removal_mask_after_layer"]
    close("last_hidden_state under mask_after_layer", aim_masked.last_hidden(model, embeds, hidden),
          case["last_hidden_state"], TOLERANCE)  # fmt: skip
    ours = GoldenPrefill(model, Aim(merge=1.0), embeds, ((start, end),))
    text = [place for place in range(embeds.shape[1]) if not start <= place < end]
    alive, entering = np.arange(start, end), [*ours.plan.entering[1:], 0]
    for layer, (mask, count) in enumerate(zip(removed, entering, strict=True)):
        if layer + 1 in ours.selections:
            alive = start + ours.views[layer + 1].unit[ours.selections[layer + 1].keep].numpy()
        same(f"physical_removal_mask_after_layer {layer}", np.isin(np.arange(len(mask)), [*alive, *text]), mask)
        both = int((mask & hidden[layer])[start:end].sum())
        agree(f"the authors hide as many after layer {layer}", int(hidden[layer].sum()) == count + len(text))
        agree(f"they keep three quarters of what we keep after layer {layer}", both >= 0.75 * count)
    case.close("retain_rate", torch.tensor(entering) / (end - start), 1e-6)
    same("text tokens left", ours.kept, np.array(text))
    close("last_hidden_state in front of the image", ours.hidden[:, :start], case["last_hidden_state"][:, :start],
          TOLERANCE)  # fmt: skip
    close("last_hidden_state of the text, by removal", ours.hidden, case["last_hidden_state"][:, text], 0.1)


def tiny_qwen2(case: GoldenCase) -> Qwen2Model:
    weights = {name[2:].replace("/", "."): case.tensor(name) for name in case.names if name.startswith("w/")}
    heads, kv_heads = case.integer("num_heads"), case.integer("num_kv_heads")
    return native_model(weights, heads, kv_heads, case.number("rope_theta"), case.number("rms_eps"))


@torch.no_grad()
def last_hidden(model: Qwen2Model, embeds: Tensor, visible_after: np.ndarray) -> Tensor:
    """Hidden states (1, T, d) after the final norm; layer l + 1 sees the keys that visible_after[l] (T,) marks."""
    length = embeds.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    handles = []
    for layer, visible in zip(model.layers, [np.ones(length, dtype=bool), *visible_after[:-1]], strict=True):
        seen = causal & torch.from_numpy(visible)
        mask = torch.zeros(length, length).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]
        handles.append(layer.register_forward_pre_hook(_under(mask), with_kwargs=True))
    try:
        return model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()


def _under(mask: Tensor) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "attention_mask": mask}

    return hook
