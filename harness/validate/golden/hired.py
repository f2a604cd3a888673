"""HiRED's files: CLS attention of the tiles of one or more pictures in, kept tokens out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.models.attention import Capture
from harness.models.signals import vit_signal
from harness.validate.golden.case import GoldenCase, agree, close, same, view_of
from harness.validate.golden.visionzip import state_of
from methods.base import INTERFACE, Budget, Shape, Signal, Site
from methods.hired import HiRED


def small(case: GoldenCase) -> None:
    for part in case.cases():
        tiles(part) if "tile_side" in part else whole(part)


def whole(case: GoldenCase) -> None:
    """LLaVA-1.5: an image is one tile."""
    scores = case.tensor("bottom_cls_attention").float().mean(1)
    n = scores.shape[1]
    shape = Shape(((1, n),), 23, 32, unit_patches=1, vit_cls=True)  # of the first image: the authors use it for all
    pruner, site = HiRED(rate=case.number("token_budget_rate")), Site(INTERFACE)
    (need,) = pruner.needs(shape)
    keep = pruner.plan(Budget("native", 0), shape).keeps[site]
    case.equals("kept_count", keep)
    selection = pruner.at_interface(view_of(site, torch.zeros(n, 1), keep, shape, {need: scores[0][:, None]}))
    case.equals("keep_mask", np.isin(np.arange(n), selection.keep))


def tiles(case: GoldenCase) -> None:
    """LLaVA-NeXT: what a native run keeps of each tile, the order in which the LLM sees it, and an exact budget.

    The files' masks are of whole tiles, before padding is cut off, so that ours are of pictures that fill them. The
    authors' order cuts it off, and takes rows for columns where a picture has not as many of both.
    """
    first, last = (case.tensor(f"{name}_cls_attention").float().mean(1) for name in ("top", "bottom"))
    side, counts = case.integer("tile_side"), case["tiles_per_image"].tolist()
    arrangements = [tuple(pair) for pair in case["grid_rows_cols"].tolist()]
    agree("a tile is square", first.shape[1] == side**2)
    agree("a picture is a base and rows x columns", counts == [1 + rows * columns for rows, columns in arrangements])
    agree("all tiles are of a picture", sum(counts) == len(first) == len(last))
    pruner, masks, order, lengths = HiRED(case.number("token_budget_rate"), case.number("alpha")), [], [], []
    pictures = zip(first.split(counts), last.split(counts), arrangements, case["image_sizes_hw"].tolist(), strict=True)
    for early, score, (rows, columns), size in pictures:
        mask = native(pruner, early, score, side, rows, columns)
        masks.append(mask)
        ids = (10_000 * torch.arange(len(mask))[:, None] + torch.arange(side**2)).masked_fill(~mask, -1)
        shown = unpadded(stitched(ids[1:], side, columns, rows), *size)
        packed = torch.cat([ids[0], shown.flatten()])
        order.append(packed[packed >= 0])
        lengths.append(len(order[-1]))
    case.equals("keep_mask", torch.cat(masks))
    case.equals("kept_per_tile", torch.cat(masks).sum(1))
    case.equals("packed_id_order", torch.cat(order))
    case.equals("packed_len_per_image", lengths)


def native(pruner: HiRED, early: Tensor, score: Tensor, side: int, rows: int, columns: int) -> Tensor:
    """(tiles, N) bool: what a native run keeps of one picture that fills its tiles."""
    patches = side**2
    vit_grids = ((side, side), (rows * side, columns * side))
    shape = Shape(
        ((side, side), (rows * side, columns * side + 1)), 23, 32, unit_patches=1, vit_cls=True, vit_grids=vit_grids,
        tiles=((0, patches, patches), *[(1, patches, patches)] * (rows * columns)),
    )  # fmt: skip
    site = Site(INTERFACE)

    def in_rows(x: Tensor) -> Tensor:  # newlines have no attention
        rest = torch.nn.functional.pad(stitched(x[1:], side, rows, columns), (0, 1))
        return torch.cat([x[0], rest.flatten()])[:, None]

    signals = dict(zip(pruner.needs(shape), (in_rows(score), in_rows(early)), strict=True))
    keep = pruner.plan(Budget("native", 0), shape).keeps[site]
    agree("a native run leaves the count to the picture", keep is None)
    view = view_of(site, torch.zeros(shape.n, 1), None, shape, signals)
    kept = pruner.at_interface(view).keep
    exact = pruner.at_interface(view_of(site, view.hidden, len(kept), shape, signals)).keep
    agree("an exact budget is met", len(exact) == len(kept) == len(set(exact.tolist())))
    mask = torch.zeros(shape.n, dtype=torch.bool).index_fill(0, kept, True)
    rest = mask[patches:].view(rows * side, -1)
    agree("no newline is kept", not bool(rest[:, -1].any()))
    back = rest[:, :-1].reshape(rows, side, columns, side).transpose(1, 2).reshape(-1, patches)
    return torch.cat([mask[None, :patches], back])


def stitched(x: Tensor, side: int, rows: int, columns: int) -> Tensor:
    """(tiles, N) -> (rows x side, columns x side)."""
    return x.view(rows, columns, side, side).transpose(1, 2).reshape(rows * side, columns * side)


def unpadded(x: Tensor, height: int, width: int) -> Tensor:
    """Cut off what a picture of height x width pixels does not fill of the grid that it was scaled and centred into."""
    rows, columns = x.shape
    if width / height > columns / rows:
        cut = (rows - int(height * columns / width)) // 2
        return x[cut : rows - cut]
    cut = (columns - int(width * rows / height)) // 2
    return x[:, cut : columns - cut]


def attention(case: GoldenCase) -> None:
    """Attention of CLS from raw projections, head by head, as our signal gives it."""
    keys, heads = case.tensor("k_proj"), case.integer("num_heads")  # (B, N + 1, C), CLS first
    width = keys.shape[2] // heads
    for number, (query, key) in enumerate(zip(case.tensor("q_proj_cls"), keys, strict=True)):
        key = key.unflatten(-1, (heads, width)).transpose(0, 1)[None]  # (1, heads, N + 1, width)
        queries = query.view(1, heads, 1, width).expand_as(key)
        n = key.shape[2] - 1
        state = state_of(torch.zeros(n + 1, 1), n, 1, patches=1, prefix=1)
        signal = Signal("rows", "vit", 0, "cls", per_head=True)
        ours = vit_signal(signal, state, [Capture(queries, key, width**-0.5)])  # (heads, n, 1)
        close(f"cls_attention_per_head of {number}", ours[..., 0], case["cls_attention_per_head"][number], 1e-6)
    same("as many images", len(keys), np.asarray(len(case["cls_attention_per_head"])))
