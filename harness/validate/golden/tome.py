"""ToMe's files: tokens and keys of several images in, merged tokens and their sizes out; the schedules of r."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness.validate.golden.case import GoldenCase, agree, close, view_of
from methods.base import IN_VIT, Budget, Shape, Signal, Site
from methods.selection import reduce, reduce_sizes
from methods.tome import ToMe, schedule

SCHEDULES: dict[str, tuple[int | tuple[int, ...], float]] = {  # what the authors' parse_r was asked
    "r8_const": (8, 0.0),
    "r8_dec": (8, -1.0),
    "r16_dec": (16, -1.0),
    "r8_inc": (8, 1.0),
    "r8_list": ((8, 8, 8), 0.0),
    "r8_half": (13, -0.5),
}


def merged(case: GoldenCase) -> None:
    """Tokens and sizes after every stage, in the authors' order. CLS is no row of a view: it stays as it is."""
    cls = bool(case["class_token"])
    tokens = case.tensor("tokens")
    images = len(tokens)
    size = torch.ones(images, tokens.shape[1])
    for stage, r in enumerate(case["stage_r"].reshape(-1).tolist(), 1):
        metric = case.tensor(f"stage{stage}_metric")
        agree(f"stage{stage}_metric has a row for every token", metric.shape[:2] == tokens.shape[:2])
        front = tokens[:, :cls], size[:, :cls]
        rows, sizes = _stage(tokens[:, cls:], size[:, cls:], metric[:, cls:], r, cls)
        tokens, size = torch.cat([front[0], rows], 1), torch.cat([front[1], sizes], 1)
        close(f"stage{stage}_tokens", tokens, case[f"stage{stage}_tokens"], 1e-5)
        close(f"stage{stage}_size", size[..., None], case[f"stage{stage}_size"], 0)


def _stage(tokens: Tensor, size: Tensor, metric: Tensor, r: int, cls: bool) -> tuple[Tensor, Tensor]:
    """Patches (B, n, d) and their sizes (B, n) after one block, through the plan and the hook."""
    images, n, width = tokens.shape
    site, shape = Site(IN_VIT, 0, "attention"), Shape(((1, n),) * images, 1, 1, unit_patches=1, vit_cls=cls)
    pruner = ToMe(r)
    plan = pruner.plan(Budget("native", 0), shape)
    if not plan.keeps:
        return tokens, size
    signals = {Signal("keys", "vit", 0, rope=False): metric.reshape(images * n, 1, 1, -1)}
    view = view_of(site, tokens.reshape(-1, 1, width), plan.keeps[site], shape, signals)
    selection = pruner.in_vit(replace(view, size=size.flatten()))
    selection.validate(view.n, view.keep)
    rows, sizes = reduce(selection, view.hidden), reduce_sizes(selection, size.flatten())
    return rows.view(images, -1, width), sizes.view(images, -1)


def schedules(case: GoldenCase) -> None:
    """The tokens that go in each block, by the argument that an array is named after."""
    for name in case.names:
        if name != "note":
            agree(f"{name} is a schedule whose argument is known", name in SCHEDULES)
            case.equals(name, schedule(len(case[name]), *SCHEDULES[name]))
