"""FasterVLM's files: CLS attention of several tiles in, kept tokens out."""

from __future__ import annotations

import numpy as np
import torch

from harness.validate.golden.case import GoldenCase, agree, view_of
from methods.base import INTERFACE, Budget, Shape, Site
from methods.fastervlm import FasterVLM


def small(case: GoldenCase) -> None:
    for part in case.cases():
        kept(part)


def kept(case: GoldenCase) -> None:
    """The kept tokens of each tile, in a native run, and the scores that they are ranked by."""
    mask = keep_mask(case)
    case.equals("keep_mask", mask)
    case.equals("kept_sorted", [np.flatnonzero(tile) for tile in mask])
    half = case["cls_attention"].dtype == np.float16
    case.close("score", case.tensor("cls_attention").float().mean(1), 1e-4 if half else 1e-6)


def tiles(case: GoldenCase) -> None:
    """The order of a LLaVA-NeXT prompt: the base tile's survivors, then those of the others in their common raster.

    Each tile keeps as many here, which no view of ours asks for (methods/fastervlm.py, departures).
    """
    mask, side = torch.from_numpy(keep_mask(case)), case.integer("tile_side")
    rows, columns = case.integer("rows"), case.integer("cols")
    agree("the tiles are a base and rows x cols", len(mask) == 1 + rows * columns)
    agree("a tile is square", mask.shape[1] == side**2)
    names = 10_000 * torch.arange(len(mask))[:, None] + torch.arange(side**2)  # (tiles, patches)
    base, rest = names[0], names[1:].view(rows, columns, side, side).transpose(1, 2).flatten()
    inside = mask[1:].view(rows, columns, side, side).transpose(1, 2).flatten()
    case.equals("packed_id_order", torch.cat([base[mask[0]], rest[inside]]))


def keep_mask(case: GoldenCase) -> np.ndarray:
    """(B, N) what our hook keeps of B tiles; every tile is an image, one patch is one token."""
    attention = case.tensor("cls_attention").float().mean(1)  # (B, N): the harness averages heads
    count, n = attention.shape
    shape = Shape(((1, n),) * count, 23, 32, unit_patches=1, vit_cls=True)
    pruner, site = FasterVLM(tokens=case.integer("keep")), Site(INTERFACE)
    (signal,) = pruner.needs(shape)
    keep = pruner.plan(Budget("native", 0), shape).keeps[site]
    view = view_of(site, torch.zeros(count * n, 1), keep, shape, {signal: attention.reshape(-1, 1)})
    selection = pruner.at_interface(view)
    selection.validate(view.n, view.keep)
    return np.isin(np.arange(count * n), selection.keep).reshape(count, n)
