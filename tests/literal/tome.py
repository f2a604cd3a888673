"""ToMe as described: bipartite soft matching, size-weighted means, and the schedules of r."""

from __future__ import annotations

import torch
from torch import Tensor


def merge(metric: Tensor, r: int, x: Tensor, size: Tensor, cls: bool, distill: bool = False) -> tuple[Tensor, Tensor]:
    """Tokens and sizes after one block. metric: (t, c), x: (t, d), size: (t, 1)."""
    t = len(metric)
    r = min(r, (t - cls - distill) // 2)
    if r <= 0:
        return x, size
    unit = metric / metric.norm(dim=-1, keepdim=True)
    s = unit[0::2] @ unit[1::2].T
    if cls:
        s[0, :] = -torch.inf
    if distill:
        s[:, 0] = -torch.inf
    best, partner = s.max(dim=1)
    ranking = best.argsort(descending=True, stable=True)
    src, unmerged = ranking[:r], ranking[r:]
    if cls:
        unmerged = unmerged.sort().values

    def gathered(y: Tensor) -> Tensor:
        odd = y[1::2].clone().index_add_(0, partner[src], y[0::2][src])
        return torch.cat([y[0::2][unmerged], odd])

    summed, sizes = gathered(x * size), gathered(size)
    return summed / sizes, sizes


def schedule(layers: int, r: int | list[int] | tuple[int, float]) -> list[int]:
    """Tokens that go in each block: a list is padded by 0, (r, inflection) is linear from r (1 - i) to its mirror."""
    if isinstance(r, list):
        return r + [0] * (layers - len(r))
    r, inflection = r if isinstance(r, tuple) else (r, 0.0)
    low = int(r * (1 - inflection))
    high = 2 * r - low
    return [int(low + (high - low) / (layers - 1) * i) for i in range(layers)]
