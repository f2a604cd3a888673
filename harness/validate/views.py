"""Views built from plain tensors: what a hook method would receive from a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from methods.base import Shape, Signal, Site, View


def view_of(
    site: Site,
    hidden: Tensor,
    keep: int | None,
    shape: Shape,
    signals: Mapping[Signal, Tensor] | None = None,
    seed: int = 0,
    prepared: Any = None,
) -> View:
    """The view of all units of `shape`, none pruned yet. Raises ValueError unless hidden has a row for each."""
    if hidden.shape[0] != shape.n:
        raise ValueError(f"{shape.n} units need as many rows, got {hidden.shape[0]}")
    image = torch.repeat_interleave(torch.arange(len(shape.grids)), torch.tensor(shape.images))
    unit = torch.cat([torch.arange(n) for n in shape.images])
    kind, size = torch.zeros_like(image), torch.ones(shape.n)
    return View(site, hidden, keep, image, unit, kind, size, shape, seed, signals=signals or {}, prepared=prepared)
