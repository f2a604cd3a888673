"""PixelPrune's files: pictures in, blocks that stay out."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.validate.golden.case import GoldenCase, Mismatch, agree, same, view_of
from methods.base import PRE_TOKENIZATION, Budget, Shape, Site
from methods.pixelprune import PixelPrune

SCANS, METRICS = ("pred_2d", "raster", "serpentine"), ("max", "max", "mae", "rmse")  # metric 0: "exact", max at 0
DTYPES = {32: torch.float32, 16: torch.float16, -16: torch.bfloat16}


def kept(case: GoldenCase) -> None:
    """Blocks that a native run keeps of each picture; at tau = 0 they are the same without anchors."""
    grids, unit = case["grids"].tolist(), case.integer("unit")
    if not grids:
        raise Mismatch("holds no picture")
    metric, scan = case.integer("metric"), SCANS[case.integer("scan")]
    tau = case.number("threshold")
    agree("exact means a threshold of 0", metric != 0 or tau == 0)
    pruner = PixelPrune(tau, METRICS[metric], bool(case.integer("anchored")), scan)
    dtype = DTYPES[case.integer("value_bits")]
    pictures = [values(case, case.tensor(f"image{i}_uint8"), dtype) for i in range(len(grids))]
    pixels = torch.cat([blocks(picture, unit) for picture in pictures])  # (n, 3, u, u)
    shape, site = Shape(tuple(map(tuple, grids)), 24, 36), Site(PRE_TOKENIZATION)
    native = pruner.plan(Budget("native", 0), shape).keeps[site]
    chosen = pruner.before_tokenization(view_of(site, pixels, native, shape)).keep
    start = 0
    for index, n in enumerate(shape.images):
        mine = chosen[(chosen >= start) & (chosen < start + n)] - start
        case.equals(f"keep{index}", mine)
        same(f"kept of picture {index}", len(mine), case["kept"][index])
        start += n
    if tau == 0 and scan == "pred_2d":
        sliding = PixelPrune(tau, METRICS[metric], anchored=False)
        same("sliding", sliding.before_tokenization(view_of(site, pixels, native, shape)).keep, chosen.numpy())


def values(case: GoldenCase, picture: Tensor, dtype: torch.dtype) -> Tensor:
    """(H, W, 3) as the authors compared them: in [0, 1], maybe after a round trip through normalised values."""
    x = picture.float() / 255
    if case.integer("normalised_round_trip"):
        return ((x - 0.5) / 0.5).to(dtype) * 0.5 + 0.5
    return x.to(dtype)


def blocks(picture: Tensor, unit: int) -> Tensor:
    """(H, W, 3) -> (n, 3, u, u) in raster order."""
    cut = picture.unflatten(1, (-1, unit)).unflatten(0, (-1, unit))  # (rows, u, columns, u, 3)
    return cut.permute(0, 2, 4, 1, 3).flatten(0, 1)
