"""HiPrune's files: attention of two ViT blocks in, kept tokens out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.models.attention import Capture
from harness.models.signals import vit_signal
from harness.validate.golden.case import GoldenCase, agree, close, view_of
from harness.validate.golden.visionzip import state_of
from methods.base import INTERFACE, Budget, Shape, Signal, Site
from methods.hiprune import HiPrune, around
from methods.ops import top_k

SIDE = 24  # CLIP-L's patches a row, which the authors' code for LLaVA has as a number


def llava(case: GoldenCase) -> None:
    """The kept tokens of every tile. Where the authors' code ends in an error, ours keeps the budget, anchors first."""
    maps = [case.tensor(f"attn_{name}_layer").float().mean((1, 2))[:, 1:] for name in ("object", "deep")]  # (B, N)
    tiles, n = maps[0].shape
    agree("the tiles have 24 x 24 patches", n == SIDE**2)
    shape = Shape(((SIDE, SIDE),) * tiles, 23, 32, unit_patches=1, vit_cls=True)
    pruner = HiPrune(
        block=case.integer("object_layer_1based"), alpha=case.number("alpha"), tokens=case.integer("retention")
    )
    # the authors average the rows of all queries, CLS's and the patches': here both kinds have that mean
    blocks = case.integer("object_layer_1based") - 1, shape.vit_layers - 1
    signals = {
        Signal("rows", "vit", block, queries): scores.reshape(-1, 1)
        for block, scores in zip(blocks, maps, strict=True)
        for queries in ("received", "cls")
    }
    mask = kept(pruner, shape, signals).view(tiles, n)
    if "official_error" in case:
        agree("official_error says what the authors' code raised", bool(case.text("official_error")))
        count = pruner.tokens
        agree("we keep the budget", int(mask.sum()) == count)
        anchors = top_k(maps[0][0], round(count * pruner.alpha / 5))
        agree("all anchors stay", bool(mask[0, anchors].all()))
        buffers = torch.isin(torch.arange(n), around(anchors, SIDE, n))
        agree("nothing but anchors and buffers stays", bool(buffers[mask[0]].all()))
        return
    case.equals("keep_mask", mask)
    case.equals("kept_per_image", mask.sum(1))


def qwen(case: GoldenCase) -> None:
    """Units of Qwen2.5-VL: scores from the maps of attention, anchors and buffers, and the kept ones.

    In the release a buffer can be a register too, so that fewer than the budget stay: there, what it keeps follows from
    our anchors and buffers and its own exclusion, and ours keeps the budget.
    """
    shape = Shape(((case.integer("grid_h"), case.integer("grid_w")),), 3, 28, unit_patches=4)
    objects, deep = case.tensor("received_object_layer"), case.tensor("received_deep_layer")  # sums over the queries
    pruner = HiPrune(block=2, depth=3, alpha=case.number("alpha"), ratio=case.number("retain_ratio"))
    if "attn_object_layer" in case:
        for name in ("object", "deep"):
            mean = pooled(case.tensor(f"attn_{name}_layer"), case.tensor("window_index"))
            close(f"received_{name}_layer", mean * 4 * shape.n, case[f"received_{name}_layer"], 1e-5)
    signals = {
        Signal("rows", "vit", block, "received"): (scores / (4 * shape.n))[:, None].expand(-1, 4)
        for block, scores in ((1, objects), (2, deep))
    }
    budget = pruner.plan(Budget("native", 0), shape).keeps[Site(INTERFACE)]
    case.equals("budget", budget)
    anchors = top_k(objects, round(budget * pruner.alpha / 5))
    case.equals("anchor_count", len(anchors))
    both = around(anchors, shape.grids[0][1], shape.n).unique()
    case.equals("anchor_and_buffer_sorted", both)
    mask = kept(pruner, shape, signals)
    agree("we keep the budget", int(mask.sum()) == budget)
    agree("anchors and buffers stay", bool(mask[both].all()))
    case.equals("kept", int(case["keep_mask"].sum()))
    registers = top_k(deep.index_add(0, both, torch.full((len(both),), -1.0)), budget - len(both))
    theirs = torch.zeros_like(mask).index_fill(0, torch.cat([both, registers]), True)
    case.equals("keep_mask", theirs)
    if int(theirs.sum()) == budget:
        case.equals("keep_mask", mask)


def pooled(attention: Tensor, window_index: Tensor) -> Tensor:
    """(n,) what our signal gives of a softmax map (h, 4n, 4n) in window order, mean over a unit's patches."""
    n = len(window_index)
    units = window_index.argsort()
    patches = (4 * units[:, None] + torch.arange(4)).flatten()
    logits = attention[:, patches][:, :, patches].log()
    heads, length, _ = logits.shape
    # queries that are the logits and keys that are unit vectors give these logits back
    capture = Capture(logits[None], torch.eye(length).expand(1, heads, -1, -1), 1.0)
    state = state_of(torch.zeros(length, 1), n, 1, patches=4)
    return vit_signal(Signal("rows", "vit", 0, "received"), state, [capture]).mean(1)


def kept(pruner: HiPrune, shape: Shape, signals: dict[Signal, Tensor]) -> Tensor:
    """(n,) bool: what a native run keeps."""
    site = Site(INTERFACE)
    view = view_of(site, torch.zeros(shape.n, 1), pruner.plan(Budget("native", 0), shape).keeps[site], shape, signals)
    selection = pruner.at_interface(view)
    selection.validate(view.n, view.keep)
    return torch.from_numpy(np.isin(np.arange(shape.n), selection.keep))
