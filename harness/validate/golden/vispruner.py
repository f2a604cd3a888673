"""VisPruner's files: features and CLS attention of several crops in, kept tokens out."""

from __future__ import annotations

import numpy as np
import torch

from harness.validate.golden.case import GoldenCase, NotAssertable, agree, same, view_of
from methods.base import INTERFACE, Budget, Shape, Signal, Site
from methods.vispruner import FEATURES, VisPruner


def kept(case: GoldenCase) -> None:
    """The kept tokens; of "fragile" files, whose diverse half rounding decides, the count and the attended half.

    Where the authors' code ends in an error there is no output: ours keeps the budget and the attended tokens.
    """
    count, important = case.integer("visual_token_num"), case.integer("important_count")
    mask = keep_mask(case, Budget("native", 0), torch.float32)
    agree("we keep visual_token_num tokens of every crop", bool((mask.sum(1) == count).all()))
    agree(
        "important_count is the ratio of the budget, cut off", important == int(count * case.number("important_ratio"))
    )
    agree("both halves are the budget", important + case.integer("diverse_count") == count)
    if "important_indices" in case:
        case.equals("important_indices", attended(case, important))
    agree(
        "we keep the most attended tokens",
        all(m[i].all() for m, i in zip(mask, attended(case, important), strict=True)),
    )
    if "official_error" in case:
        agree("official_error says what the authors' code raised", bool(case.text("official_error")))
        return
    theirs = case["keep_mask"]
    same("kept_indices_sorted, against keep_mask", np.stack([np.flatnonzero(crop) for crop in theirs]),
         case["kept_indices_sorted"])  # fmt: skip
    if "_fragile_" not in case.path.name:
        case.equals("keep_mask", mask)
        if "_exact_" in case.path.name:
            exact = keep_mask(case, Budget("layer_average", mask.size // mask.shape[1] * count), torch.float64)
            same("keep_mask, in float64 and by an exact budget", exact, theirs)
        return
    agree(
        "the authors keep the most attended tokens",
        all(crop[i].all() for crop, i in zip(theirs, case["important_indices"], strict=True)),
    )
    raise NotAssertable(
        "the diverse half is decided by rounding (README: do not assert index equality); the count and the attended "
        "tokens agree"
    )


def keep_mask(case: GoldenCase, budget: Budget, dtype: torch.dtype) -> np.ndarray:
    """(B, N) what our hook keeps of B crops; every crop is an image, one patch is one token, and there is a CLS."""
    features = case.tensor("features").to(dtype)
    attention = case.tensor("cls_attention").mean(1)  # (B, N): the harness averages heads
    crops, n, _ = features.shape
    shape = Shape(((1, n),) * crops, 24, 32, unit_patches=1, vit_cls=True)
    pruner = VisPruner(case.number("important_ratio"), case.integer("visual_token_num"))
    signals = {
        Signal("rows", "vit", 23, "cls"): attention.reshape(-1, 1),
        FEATURES: features.reshape(-1, 1, features.shape[-1]),
    }
    site = Site(INTERFACE)
    keep = pruner.plan(budget, shape).keeps[site]
    selection = pruner.at_interface(view_of(site, torch.zeros(crops * n, 8), keep, shape, signals))
    selection.validate(crops * n, keep)
    same("our indices, ascending", selection.keep, np.unique(selection.keep))
    return np.isin(np.arange(crops * n), selection.keep).reshape(crops, n)


def attended(case: GoldenCase, count: int) -> np.ndarray:
    """(B, count) places of the most attended tokens, ascending: what VisPruner keeps with important_ratio 1."""
    attention = case.tensor("cls_attention").mean(1)
    return attention.sort(descending=True, stable=True).indices[:, :count].sort().values.numpy()
