"""HoloV's files: attention (and projected tokens) in, kept tokens and zero vectors out."""

from __future__ import annotations

import torch

from harness.validate.golden.case import GoldenCase, agree, same, view_of
from methods.base import INTERFACE, Budget, Shape, Site
from methods.holov import HoloV
from methods.selection import reduce


def small(case: GoldenCase) -> None:
    for part in case.cases():
        kept(part)


def kept(case: GoldenCase) -> None:
    """The released order with its zero vectors, what the LLM sees of it, and that ours adds nothing but tokens."""
    tokens, attention = case.tensor("tokens"), case.tensor("attention")
    images, n, width = tokens.shape
    shape, site = Shape(((1, n),) * images, 23, 32, unit_patches=1, vit_cls=True), Site(INTERFACE)
    released = {"overflow": "zero", "order": "attention"}
    if "prune_rate" in case:
        pruner = HoloV(crops="share", ratio=case.number("prune_rate"), **released)
        case.equals("num_crops", pruner.runs(n, case.integer("keep")))
    else:
        pruner = HoloV(crops=case.integer("num_crops"), tokens=case.integer("keep"), **released)
    keep = pruner.plan(Budget("native", 0), shape).keeps[site]
    agree("a native run keeps keep tokens of each image", keep == images * case.integer("keep"))
    (signal,) = pruner.needs(shape)
    view = view_of(site, tokens.flatten(0, 1), keep, shape, {signal: attention.reshape(-1, 1)})
    selection = pruner.at_interface(view)
    selection.validate(view.n, view.keep)
    real = selection.weight[selection.keep].view(images, -1) > 0
    local = selection.keep.view(images, -1) - n * torch.arange(images)[:, None]
    case.equals("kept_in_output_order", torch.where(real, local, -1))
    case.equals("padding_count", (~real).sum(1))
    if "out_tokens" in case:
        case.equals("out_tokens", reduce(selection, view.hidden).view(images, -1, width))
    for image, row in enumerate(attention):
        ours, all_real = HoloV(crops=pruner.crops).of_image(row, keep // images)
        agree("ours has no zero vector", bool(all_real.all()))
        theirs = torch.from_numpy(case["kept_in_output_order"][image])
        same(
            "their tokens among ours", torch.isin(theirs[theirs >= 0], ours), torch.ones(int(real[image].sum())).numpy()
        )
