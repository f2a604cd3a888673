"""SCOPE's files: features and CLS attention of several tiles in, kept tokens out."""

from __future__ import annotations

import torch

from harness.validate.golden.case import GoldenCase, view_of
from methods.base import INTERFACE, Budget, Shape, Site
from methods.scope import FEATURES, Scope, covering


def kept(case: GoldenCase) -> None:
    """The order of choice, and what a native run keeps."""
    features, saliency = case.tensor("features"), case.tensor("saliency_head_sum").float()
    tiles, n, width = features.shape
    shape, site = Shape(((1, n),) * tiles, 23, 32, unit_patches=1, vit_cls=True), Site(INTERFACE)
    combine = "add" if case.integer("combine_add") else "multiply"
    pruner = Scope(alpha=case.number("alpha"), combine=combine, tokens=case.integer("k"))
    attention, _ = pruner.needs(shape)
    rows = saliency.reshape(-1, 1)  # the sum of all heads: as one of one head, or as a mean, which is in proportion
    signals = {attention: rows[None] if attention.per_head else rows, FEATURES: features.reshape(-1, 1, width)}
    keep = pruner.plan(Budget("native", 0), shape).keeps[site]
    view = view_of(site, torch.zeros(tiles * n, 1), keep, shape, signals)
    selection = pruner.at_interface(view)
    selection.validate(view.n, view.keep)
    case.equals("kept_sorted", selection.keep.view(tiles, -1) - n * torch.arange(tiles)[:, None])
    weights = saliency**pruner.alpha
    orders = [covering(*tile, pruner.tokens, combine) for tile in zip(features, weights, strict=True)]
    case.equals("selection_order", torch.stack(orders))
