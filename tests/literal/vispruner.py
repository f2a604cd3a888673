"""VisPruner as described: every step compares the features of its even places with those of its odd places."""

from __future__ import annotations

import torch
from torch import Tensor


def vispruner(features: Tensor, attention: Tensor, budget: int, ratio: float) -> list[int]:
    """Kept indices of one image, ascending. features: (n, c), attention: (n,) mean over heads."""
    n_important = int(budget * ratio)
    order = attention.argsort(descending=True, stable=True)
    important, rest = order[:n_important], order[n_important:]
    if n_important == budget:
        rest = rest[:0]
    x = features.float()
    unit = x / x.norm(dim=-1, keepdim=True)
    while rest.numel():
        even, odd = rest[0::2], rest[1::2]  # of an odd list the longer half is first
        q = min(8, len(rest) - (budget - n_important), len(even))
        if q <= 0:
            break
        closest = (unit[even] @ unit[odd].T).max(dim=1).values
        ranked = closest.argsort(descending=True, stable=True)
        rest = torch.cat([even[ranked[q:]], odd])
    keep = torch.zeros(len(order), dtype=torch.bool)
    keep[important] = True
    keep[rest] = True
    return keep.nonzero().flatten().tolist()
